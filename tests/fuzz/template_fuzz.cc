// Any bytes as msa_template.json are either refused with an Error or give prompts.
#include <cstddef>
#include <cstdint>

#include "../tokenizer/tiny_tokenizer.h"
#include "core/error.h"
#include "tokenizer/template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizer = msa::Tokenizer::from_json(msa::testing::tiny_tokenizer().dump(), "tiny");
  try {
    const std::string_view json(reinterpret_cast<const char*>(data), size);
    const auto prompts = msa::PromptTemplate::from_json(json, "input", tokenizer);
    const int32_t text[] = {1, 2};
    const auto document = prompts.document(7, text);
    const auto query = prompts.query("a <|im_end|>");
    MSA_CHECK(document.tokens.size() == document.routed.size());
    MSA_CHECK(query.tokens.size() == query.routed.size());
    MSA_CHECK(!prompts.cite(7).empty() && !prompts.fetched(7, text).tokens.empty());
    MSA_CHECK(!prompts.final_question("a").tokens.empty() && !prompts.answer_prefix().tokens.empty());
  } catch (const msa::Error&) {
    // refused
  }
  return 0;
}
