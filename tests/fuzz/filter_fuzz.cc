// Any text as a filter is either refused with an Error or permits some documents; the bank stays as it is.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "../bank/bank_testing.h"
#include "bank/filter.h"
#include "core/error.h"

namespace {

const msa::Bank& bank() {
  static const auto kBank = [] {
    auto bank = msa::Bank::in_memory(msa::testing::small_shape());
    std::mt19937 random(1);
    msa::testing::Batch batch = msa::testing::random_batch(*bank, 3, random);
    batch.inputs[1].metadata_json = R"({"tags": ["a", "b"], "time": "2026-01-01", "n": 3, "ok": true})";
    MSA_CHECK(msa::testing::add(*bank, batch).committed());
    return bank;
  }();
  return *kBank;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string kBefore = bank().fingerprint();
  try {
    const auto filter = msa::Filter::parse({reinterpret_cast<const char*>(data), size});
    const auto flags = bank().permitted(*bank().snapshot(), filter);
    MSA_CHECK(flags.size() == 3);
  } catch (const msa::Error&) {
    // refused
  }
  MSA_CHECK(bank().fingerprint() == kBefore);
  return 0;
}
