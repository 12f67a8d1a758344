#include "io/gguf.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace msa {
namespace {

TEST(Gguf, ReadsTheDefaultModel) {
  const std::string path = MSA_SOURCE_DIR "/models/smollm2-135m-msa/base.gguf";
  if (!file_exists(path)) GTEST_SKIP() << path << " is not there; set-up fetches it";
  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file.tensors().size(), 272u);
  EXPECT_EQ(file.string("general.architecture"), "llama");
  EXPECT_EQ(file.integer("llama.block_count"), 30);
  EXPECT_EQ(file.number("llama.rope.freq_base"), 100000.0);
  EXPECT_EQ(file.boolean("tokenizer.ggml.add_bos_token"), false);
  EXPECT_EQ(file.strings("tokenizer.ggml.tokens").size(), 49152u);
  EXPECT_EQ(file.strings("tokenizer.ggml.merges")[2], "i n");
  EXPECT_EQ(file.integers("tokenizer.ggml.token_type")[0], 3);
  EXPECT_EQ(file.find("token_embd.weight")->describe(), "Q8_0 [49152, 576]");
  EXPECT_EQ(file.find("blk.0.attn_k.weight")->describe(), "Q4_1 [192, 576]");
  EXPECT_EQ(file.integer("no.such.key"), std::nullopt);
  EXPECT_THROW(file.integer("general.architecture"), Error);
  EXPECT_THROW(file.string("tokenizer.ggml.tokens"), Error);
}

}  // namespace
}  // namespace msa
