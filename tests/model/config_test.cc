#include "model/config.h"

#include <gtest/gtest.h>

#include "tests/model/model_files.h"

namespace msa {
namespace {

using nlohmann::json;

class Config : public testing::Test {
 protected:
  Config() : golden_(read_json_file(kGoldens + "cosine-p8/config.json")) {}

  ModelConfig read(const json& config) const {
    write_file_atomically(folder_ / "config.json", config.dump());
    return read_config(folder_ / "config.json");
  }
  ModelConfig with(const char* key, const json& value) const {
    json config = golden_;
    config[key] = value;
    return read(config);
  }
  ModelConfig with_memory(const char* key, const json& value) const {
    json config = golden_;
    config["msa_config"][key] = value;
    return read(config);
  }

  TemporaryFolder folder_;
  json golden_;
};

TEST_F(Config, ReadsRoutingLayersInEveryForm) {
  const std::vector<int> expected = {1, 3, 5};
  EXPECT_EQ(with_memory("router_layer_idx", "1,3,5").memory.routing_layers, expected);
  EXPECT_EQ(with_memory("router_layer_idx", " 5, 1 ,3").memory.routing_layers, expected);
  EXPECT_EQ(with_memory("router_layer_idx", {5, 3, 1}).memory.routing_layers, expected);
  const std::vector<int> upper = {3, 4, 5};
  EXPECT_EQ(with("msa_config", nullptr).memory.routing_layers, upper);
  EXPECT_EQ(with_memory("router_layer_idx", nullptr).memory.routing_layers, upper);
  EXPECT_EQ(with_memory("router_layer_idx", "").memory.routing_layers, upper);
  EXPECT_TRUE(read(golden_).is_routing(3));
  EXPECT_FALSE(read(golden_).is_routing(2));
  for (const json& bad : {json("3,4,6"), json("-1"), json("3,3"), json("3;4"), json("3,"), json("three"),
                          json({3, "4"}), json({-1}), json({1LL << 40}), json(3.5), json("99999999999")}) {
    expect_message([&] { with_memory("router_layer_idx", bad); }, {"config.json", "router_layer_idx"});
  }
}

TEST_F(Config, SimilarityFollowsTheLossUnlessItIsGiven) {
  EXPECT_EQ(with_memory("aux_loss_method", "INFONCE").memory.similarity, RouterSimilarity::kCosine);
  EXPECT_EQ(with_memory("aux_loss_method", "INFONCE_DECOUPLE").memory.similarity, RouterSimilarity::kCosine);
  EXPECT_EQ(with_memory("aux_loss_method", "BCE").memory.similarity, RouterSimilarity::kScaledDot);
  EXPECT_EQ(with_memory("router_similarity", "scaled_dot").memory.similarity, RouterSimilarity::kScaledDot);
  EXPECT_EQ(with("msa_config", nullptr).memory.similarity, RouterSimilarity::kCosine);
  expect_message([&] { with_memory("router_similarity", "dot"); }, {"router_similarity", "cosine or scaled_dot"});
}

TEST_F(Config, FindsRopeThetaWhereverItIs) {
  json config = golden_;
  config.erase("rope_theta");
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5000.0}};
  EXPECT_EQ(read(config).rope_theta, 5000.0f);
  EXPECT_EQ(with("rope_scaling", nullptr).rope_theta, 1000000.0f);
  EXPECT_EQ(with("rope_scaling", {{"type", "default"}}).rope_theta, 1000000.0f);
  expect_message([&] { with("rope_scaling", {{"type", "linear"}, {"factor", 2.0}}); }, {"rope_scaling", "linear"});
  expect_message([&] { with("rope_parameters", {{"rope_type", "yarn"}}); }, {"rope_parameters", "yarn"});
}

TEST_F(Config, DefaultsFollowHuggingFace) {
  json config = golden_;
  config.erase("head_dim");
  config.erase("num_key_value_heads");
  config["architectures"] = {"LlamaForCausalLM"};
  const ModelConfig c = read(config);
  EXPECT_EQ(c.architecture, Architecture::kLlama);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.n_kv_heads, 4);
}

TEST_F(Config, RefusesWhatItCannotCompute) {
  const std::vector<std::pair<const char*, json>> broken = {{"architectures", {"MistralForCausalLM"}},
                                                            {"architectures", "x"},
                                                            {"attention_bias", true},
                                                            {"mlp_bias", true},
                                                            {"use_sliding_window", true},
                                                            {"hidden_act", "gelu"},
                                                            {"num_hidden_layers", 0},
                                                            {"num_hidden_layers", -1},
                                                            {"num_hidden_layers", 1LL << 40},
                                                            {"num_hidden_layers", 2.5},
                                                            {"num_hidden_layers", "6"},
                                                            {"num_hidden_layers", nullptr},
                                                            {"hidden_size", 1LL << 31},
                                                            {"vocab_size", 0},
                                                            {"head_dim", 1 << 20},
                                                            {"max_position_embeddings", 1LL << 50},
                                                            {"rope_theta", 0},
                                                            {"rope_theta", "x"},
                                                            {"rms_norm_eps", -1e-6},
                                                            {"tie_word_embeddings", 1},
                                                            {"partial_rotary_factor", 0.5},
                                                            {"msa_config", 3}};
  for (const auto& one : broken) expect_message([&] { with(one.first, one.second); }, {"config.json", one.first});
  expect_message([&] { with("num_key_value_heads", 3); }, {"config.json", "no multiple of its 3 key/value heads"});
  expect_message([&] { with("head_dim", 31); }, {"head size 31 is odd"});
  expect_message([&] { with_memory("pooling_kernel_size", 0); }, {"pooling_kernel_size"});
  expect_message([&] { with_memory("top_k_docs", 1 << 20); }, {"top_k_docs"});
  expect_message([&] { with_memory("head_reduce_method", "max"); }, {"head_reduce_method", "mean"});
  expect_message([&] { read(json::array()); }, {"config.json", "no JSON object"});
}

TEST_F(Config, SurvivesItsOwnJson) {
  for (const char* name : {"cosine-p8", "llama-p8"}) {
    const ModelConfig c = read_config(kGoldens + name + "/config.json");
    const ModelConfig again = read(config_to_json(c));
    EXPECT_EQ(config_to_json(again), config_to_json(c));
    EXPECT_EQ(again.rms_eps, c.rms_eps);
    EXPECT_EQ(again.rope_theta, c.rope_theta);
  }
}

TEST_F(Config, ReadsGgufMetadata) {
  const std::string path = folder_ / "m.gguf";
  const Checkpoint checkpoint("llama-p8");
  write_file_atomically(path, llama_gguf(checkpoint, DType::kF32));
  const ModelConfig found = read_config(GgufFile::open(path));
  ModelConfig expected = read_config(kGoldens + "llama-p8/config.json");
  expected.memory = found.memory;
  EXPECT_EQ(config_to_json(found), config_to_json(expected));
  EXPECT_EQ(found.memory.chunk_tokens, 64);

  GgufBuilder other;
  other.add("general.architecture", "gemma");
  write_file_atomically(path, other.build());
  expect_message([&] { read_config(GgufFile::open(path)); }, {"m.gguf", "general.architecture", "gemma"});
  GgufBuilder broken;
  broken.add("general.architecture", "llama");
  broken.add("llama.block_count", 0u);
  write_file_atomically(path, broken.build());
  expect_message([&] { read_config(GgufFile::open(path)); }, {"llama.block_count", "is 0"});
}

}  // namespace
}  // namespace msa
