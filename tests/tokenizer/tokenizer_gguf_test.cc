#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "../io/gguf_builder.h"
#include "core/error.h"
#include "tiny_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace msa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// The fields of a GGUF file that make a tokenizer: all bytes, "ab", then a control and a user-defined token.
struct Fields {
  std::string model = "gpt2";
  std::string pre = "smollm";
  std::vector<std::string> tokens;
  std::vector<std::string> merges = {"a b"};
  std::vector<int32_t> types;

  Fields() {
    for (int b = 0; b < 256; ++b) tokens.push_back(testing::letter(b));
    tokens.insert(tokens.end(), {"ab", "<|im_end|>", "<tool>"});
    types.assign(257, 1);
    types.insert(types.end(), {3, 4});
  }
};

class TokenizerGguf : public ::testing::Test {
 protected:
  ~TokenizerGguf() override { std::filesystem::remove(path_); }

  Tokenizer load(const Fields& fields) {
    GgufBuilder builder;
    builder.add("tokenizer.ggml.model", fields.model);
    if (!fields.pre.empty()) builder.add("tokenizer.ggml.pre", fields.pre);
    builder.add("tokenizer.ggml.tokens", fields.tokens);
    builder.add("tokenizer.ggml.merges", fields.merges);
    builder.add("tokenizer.ggml.token_type", fields.types);
    write_file_atomically(path_, builder.build());
    return Tokenizer::from_gguf(path_);
  }
  std::string refusal(const Fields& fields) {
    try {
      load(fields);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }

  const std::string path_ =
      ::testing::TempDir() + ::testing::UnitTest::GetInstance()->current_test_info()->name() + "_tokenizer.gguf";
};

TEST_F(TokenizerGguf, ReadsTokensMergesAndTypes) {
  const Tokenizer t = load({});
  EXPECT_EQ(t.vocab_size(), 259);
  EXPECT_THAT(t.encode("ab<tool>a<|im_end|>", true), ElementsAre(256, 258, 'a', 257));
  EXPECT_EQ(t.encode("<|im_end|>").size(), 10u);
  EXPECT_TRUE(t.is_special(257) && !t.is_special(258));
}

TEST_F(TokenizerGguf, KnowsThePreTokenisers) {
  Fields fields;
  fields.tokens.insert(fields.tokens.end(), {"12", "123", "''"});
  fields.types.resize(fields.tokens.size(), 1);
  fields.merges = {"1 2", "12 3"};
  const auto count = [&](const char* pre, const char* text) {
    fields.pre = pre;
    return load(fields).encode(text).size();
  };
  EXPECT_EQ(count("smollm", "1231"), 4u);
  EXPECT_EQ(count("qwen2", "1231"), 4u);
  EXPECT_EQ(count("llama-bpe", "1231"), 2u);  // up to three digits
  EXPECT_EQ(count("gpt-2", "12312"), 2u);
  EXPECT_EQ(count("", "12312"), 2u);
  EXPECT_EQ(count("qwen2", "e\xCC\x81"), 2u);  // composed to two bytes
  EXPECT_EQ(count("gpt-2", "e\xCC\x81"), 3u);
}

TEST_F(TokenizerGguf, NamesWhatItRefuses) {
  Fields fields;
  fields.pre = "tekken";
  EXPECT_THAT(refusal(fields),
              ::testing::AllOf(HasSubstr("tokenizer.ggml.pre"), HasSubstr("tekken"), HasSubstr("smollm")));
  fields = {};
  fields.model = "llama";
  EXPECT_THAT(refusal(fields), HasSubstr("tokenizer.ggml.model"));
  fields = {};
  fields.tokens.clear();
  EXPECT_THAT(refusal(fields), HasSubstr("tokenizer.ggml.tokens"));
  fields = {};
  fields.types.pop_back();
  EXPECT_THAT(refusal(fields), HasSubstr("tokenizer.ggml.token_type"));
  fields = {};
  fields.merges = {"a b", "ab"};
  EXPECT_THAT(refusal(fields), HasSubstr("tokenizer.ggml.merges[1]"));
  fields.merges = {"a c"};
  EXPECT_THAT(refusal(fields), HasSubstr("needs the token 'ac'"));
  fields = {};
  fields.tokens[257] = "\xFF\xFE";
  EXPECT_THAT(refusal(fields), HasSubstr("added token 257"));
  fields.types[257] = 1;  // any bytes may be a token that nothing reaches
  EXPECT_EQ(refusal(fields), "no error");
}

}  // namespace
}  // namespace msa
