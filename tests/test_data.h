// Where the tests' recorded data lie.
#pragma once
#include <cstdlib>
#include <string>

namespace msa {

/// The repository's tests/data, or MSA_TEST_DATA where the program runs elsewhere.
inline std::string test_data() {
  const char* variable = std::getenv("MSA_TEST_DATA");
  return variable != nullptr ? variable : MSA_SOURCE_DIR "/tests/data";
}

}  // namespace msa
