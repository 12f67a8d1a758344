#include "model/weights.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "io/file.h"

namespace msa {
namespace {

const std::string kGoldens = MSA_SOURCE_DIR "/tests/data/conformance/";
const std::string kDefaultModel = MSA_SOURCE_DIR "/models/smollm2-135m-msa";

TEST(LoadWeights, ReadsTheGoldenCheckpoints) {
  const ModelWeights qwen3 = load_weights(kGoldens + "cosine-p8");
  EXPECT_EQ(qwen3.config.architecture, Architecture::kQwen3);
  EXPECT_EQ(qwen3.config.memory.routing_layers, (std::vector<int>{3, 4, 5}));
  EXPECT_EQ(qwen3.config.memory.chunk_tokens, 8);
  EXPECT_EQ(qwen3.config.memory.similarity, RouterSimilarity::kCosine);
  EXPECT_EQ(qwen3.layers.size(), 6u);
  EXPECT_TRUE(qwen3.layers[2].router_q.empty());
  EXPECT_EQ(qwen3.layers[3].router_q.describe(), "F32 [128, 64]");
  EXPECT_EQ(qwen3.layers[3].router_k.describe(), "F32 [64, 64]");
  EXPECT_EQ(qwen3.layers[0].q_norm.describe(), "F32 [32]");
  EXPECT_NE(qwen3.lm_head.data, qwen3.embedding.data);
  EXPECT_EQ(qwen3.fingerprint.size(), 32u);

  const ModelWeights llama = load_weights(kGoldens + "llama-p8");
  EXPECT_EQ(llama.config.architecture, Architecture::kLlama);
  EXPECT_TRUE(llama.layers[0].q_norm.empty());
  EXPECT_EQ(llama.lm_head.data, llama.embedding.data);
  EXPECT_NE(llama.fingerprint, qwen3.fingerprint);
}

TEST(LoadWeights, ReadsTheDefaultModel) {
  if (!file_exists(kDefaultModel + "/base.gguf")) GTEST_SKIP() << "base.gguf is not there; set-up fetches it";
  const auto start = std::chrono::steady_clock::now();
  const ModelWeights weights = load_weights(kDefaultModel);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  std::cout << "loaded in " << took.count() << " ms, fingerprint " << weights.fingerprint << "\n";
  EXPECT_EQ(weights.config.n_layers, 30);
  EXPECT_EQ(weights.config.max_positions, 8192);
  EXPECT_EQ(weights.config.memory.routing_layers.size(), 15u);
  EXPECT_EQ(weights.embedding.describe(), "Q8_0 [49152, 576]");
  EXPECT_EQ(weights.lm_head.data, weights.embedding.data);
  const bool adapted = file_exists(kDefaultModel + "/adapter.safetensors");
  EXPECT_EQ(weights.layers[20].router_q.empty(), !adapted);
  EXPECT_EQ(weights.layers[20].k.describe(), adapted ? "F32 [192, 576]" : "Q4_1 [192, 576]");
}

}  // namespace
}  // namespace msa
