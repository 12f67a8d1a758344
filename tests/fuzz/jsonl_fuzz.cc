// Any bytes as lines of a BEIR file are either refused with an Error or give documents and questions.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "io/beir.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  try {
    const msa::BeirDocument document = msa::parse_beir_document(line, "input:1");
    MSA_CHECK(document.full_text().size() >= document.text.size());
  } catch (const msa::Error&) {
    // refused
  }
  try {
    static_cast<void>(msa::parse_beir_query(line, "input:1"));
  } catch (const msa::Error&) {
    // refused
  }
  return 0;
}
