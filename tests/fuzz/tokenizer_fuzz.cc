// Any bytes as tokenizer.json are either refused with an Error or give a tokenizer whose tokens hold valid UTF-8.
#include <fuzzer/FuzzedDataProvider.h>

#include "core/error.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  const std::string text = input.ConsumeRandomLengthString(256);
  const std::string json = input.ConsumeRemainingBytesAsString();
  try {
    const auto tokenizer = msa::Tokenizer::from_json(json, "input");
    for (const bool parse_special : {false, true}) {
      const auto tokens = tokenizer.encode(text, parse_special);
      const std::string whole = tokenizer.decode(tokens);
      std::string streamed;
      msa::StreamDecoder decoder(tokenizer);
      for (const int32_t token : tokens) streamed += decoder.add(token);
      MSA_CHECK(streamed + decoder.finish() == whole);
      MSA_CHECK(msa::is_valid_utf8(whole));
    }
  } catch (const msa::Error&) {
    // refused
  }
  return 0;
}
