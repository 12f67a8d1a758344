#include "model/weights.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <iostream>
#include <numeric>

#include "tests/model/model_files.h"

namespace msa {
namespace {

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

TEST(LoadWeights, GgufRowsComeBackInHuggingFaceOrder) {
  const Checkpoint checkpoint("llama-p8");
  const TemporaryFolder folder;
  const ModelWeights expected = load_weights(kGoldens + "llama-p8");
  for (const DType type : {DType::kF32, DType::kQ8_0}) {
    SCOPED_TRACE(traits(type).name);
    write_file_atomically(folder / "base.gguf", llama_gguf(checkpoint, type));
    const ModelWeights found = load_weights(folder.path());
    EXPECT_EQ(found.config.head_dim, expected.config.head_dim);
    EXPECT_EQ(found.config.vocab, expected.config.vocab);
    EXPECT_EQ(found.config.memory.routing_layers, (std::vector<int>{3, 4, 5}));
    EXPECT_TRUE(found.layers[3].router_q.empty());
    const auto compare = [&](const Tensor& a, const Tensor& b) {
      EXPECT_EQ(a.dtype, type);
      const std::vector<float> x = values_of(a), y = values_of(b);
      float largest = 0, deviation = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        largest = std::max(largest, std::fabs(y[i]));
        deviation = std::max(deviation, std::fabs(x[i] - y[i]));
      }
      EXPECT_LE(deviation, type == DType::kF32 ? 0.0f : largest / 200);
    };
    for (size_t l = 0; l < found.layers.size(); ++l) {
      compare(found.layers[l].q, expected.layers[l].q);
      compare(found.layers[l].k, expected.layers[l].k);
      compare(found.layers[l].v, expected.layers[l].v);
      compare(found.layers[l].down, expected.layers[l].down);
    }
    compare(found.embedding, expected.embedding);
  }
}

TEST(LoadWeights, ConfigAndGgufMustAgree) {
  Checkpoint checkpoint("llama-p8");
  const TemporaryFolder folder;
  write_file_atomically(folder / "base.gguf", llama_gguf(checkpoint, DType::kF32));
  write_file_atomically(folder / "config.json", checkpoint.config.dump());
  EXPECT_EQ(load_weights(folder.path()).config.memory.chunk_tokens, 8);
  checkpoint.config["rope_theta"] = 10000.0;
  write_file_atomically(folder / "config.json", checkpoint.config.dump());
  expect_message([&] { load_weights(folder.path()); }, {"base.gguf", "rope_theta", "config.json"});
}

TEST(LoadWeights, MergesTheAdapterInFloat32) {
  const Checkpoint checkpoint("llama-p8");
  const AdapterFiles adapter(checkpoint);
  const TemporaryFolder folder;
  checkpoint.write(folder.path());
  adapter.write(folder.path());
  const ModelWeights base = load_weights(kGoldens + "llama-p8");
  const ModelWeights merged = load_weights(folder.path());
  const auto expect_update = [&](const Tensor& before, const Tensor& after, const std::string& module) {
    ASSERT_EQ(after.dtype, DType::kF32);
    const Tensor a = adapter.tensors.at("base_model.model." + module + ".lora_A.weight");
    const Tensor b = adapter.tensors.at("base_model.model." + module + ".lora_B.weight");
    for (int64_t i = 0; i < before.dim(0); ++i) {
      for (int64_t j = 0; j < before.dim(1); ++j) {
        double update = 0;
        for (int k = 0; k < AdapterFiles::kRank; ++k) update += 2.0 * b.row<float>(i)[k] * a.row<float>(k)[j];
        ASSERT_NEAR(after.row<float>(i)[j], before.row<float>(i)[j] + update, 1e-6);
      }
    }
  };
  expect_update(base.layers[0].q, merged.layers[0].q, "model.layers.0.self_attn.q_proj");
  expect_update(base.layers[1].down, merged.layers[1].down, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(values_of(base.layers[0].k), values_of(merged.layers[0].k));
  EXPECT_EQ(values_of(base.layers[4].router_q), values_of(merged.layers[4].router_q));
}

TEST(LoadWeights, TakesTheWeightsOfLayersWithMeanOne) {
  const Checkpoint checkpoint("llama-p8");
  AdapterFiles adapter(checkpoint);
  const size_t n = load_weights(kGoldens + "llama-p8").config.memory.routing_layers.size();
  EXPECT_TRUE(load_weights(kGoldens + "llama-p8").config.memory.layer_weights.empty());
  std::vector<float> values(n, 0.25f);
  values[0] = 0.5f;
  adapter.tensors["router_layer_weights"] = Tensor(values.data(), DType::kF32, {static_cast<int64_t>(n)});
  const TemporaryFolder folder;
  checkpoint.write(folder.path());
  adapter.write(folder.path());
  const std::vector<float> weights = load_weights(folder.path()).config.memory.layer_weights;
  ASSERT_EQ(weights.size(), n);
  EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0), static_cast<double>(n), 1e-5);
  EXPECT_FLOAT_EQ(weights[0], 2 * weights[1]);
  for (const float wrong : {0.0f, -1.0f, std::nanf("")}) {
    values[1] = wrong;
    adapter.write(folder.path());
    EXPECT_THROW(load_weights(folder.path()), Error);
  }
}

TEST(LoadWeights, RefusesAdaptersItWouldComputeOtherwise) {
  const Checkpoint checkpoint("llama-p8");
  const TemporaryFolder folder;
  checkpoint.write(folder.path());
  const auto expect_refused = [&](const std::function<void(AdapterFiles&)>& change,
                                  const std::vector<std::string>& parts) {
    AdapterFiles adapter(checkpoint);
    change(adapter);
    adapter.write(folder.path());
    expect_message([&] { load_weights(folder.path()); }, parts);
  };
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
  expect_refused([](AdapterFiles& f) { f.settings["use_dora"] = true; }, {"adapter_config.json", "use_dora"});
  expect_refused([](AdapterFiles& f) { f.settings["fan_in_fan_out"] = true; }, {"fan_in_fan_out"});
  expect_refused([](AdapterFiles& f) { f.settings["rank_pattern"] = {{"q_proj", 4}}; }, {"rank_pattern"});
  expect_refused([](AdapterFiles& f) { f.settings["bias"] = "all"; }, {"bias"});
  expect_refused([](AdapterFiles& f) { f.settings.erase("r"); }, {"field r"});
  expect_refused([](AdapterFiles& f) { f.settings["r"] = 4; },
                 {"adapter.safetensors", "q_proj.lora_A", "[4, 96]", "F32 [5, 96]"});
  expect_refused([](AdapterFiles& f) { f.settings["lora_alpha"] = "x"; }, {"lora_alpha"});
  expect_refused([&](AdapterFiles& f) { f.tensors.erase(q + "B.weight"); }, {"q_proj.lora_B", "missing"});
  expect_refused([&](AdapterFiles& f) { f.add("model.embed_tokens", 400, 96); }, {"embed_tokens", "no LoRA factor"});
  expect_refused(
      [&](AdapterFiles& f) { f.tensors.erase("base_model.model.model.layers.3.self_attn.router_k_proj.0.weight"); },
      {"no error"});  // the base has one
  expect_refused([&](AdapterFiles& f) { f.settings["use_rslora"] = true; }, {"no error"});
}

TEST(LoadWeights, ErrorsNameFileTensorAndShapes) {
  const TemporaryFolder folder;
  expect_message([&] { load_weights(folder.path()); }, {folder.path(), "holds no weights", "base.gguf"});
  expect_message([&] { load_weights(folder / "absent"); }, {"no model directory"});
  const auto expect_refused = [&](const std::function<void(Checkpoint&)>& change,
                                  const std::vector<std::string>& parts) {
    Checkpoint checkpoint("cosine-p8");
    change(checkpoint);
    checkpoint.write(folder.path());
    expect_message([&] { load_weights(folder.path()); }, parts);
  };
  const std::string k = "model.layers.2.self_attn.k_proj.weight";
  expect_refused([&](Checkpoint& c) { c.tensors.erase(k); }, {folder.path(), k, "missing", "[64, 64]"});
  expect_refused([&](Checkpoint& c) { c.tensors[k] = c.tensors[k].slice_rows(0, 63); },
                 {"model.safetensors", k, "[64, 64]", "F32 [63, 64]"});
  expect_refused([&](Checkpoint& c) { c.tensors[k].dtype = DType::kI32; }, {k, "I32 [64, 64]"});
  expect_refused(
      [&](Checkpoint& c) { c.tensors["model.layers.0.self_attn.q_proj.bias"] = c.tensors["model.norm.weight"]; },
      {"q_proj.bias", "bias are not supported"});
  expect_refused([&](Checkpoint& c) { c.tensors.erase("model.layers.4.self_attn.router_k_proj.0.weight"); },
                 {"layers.4.self_attn.router_k_proj.0.weight", "missing"});
  expect_refused([](Checkpoint& c) { c.tensors["model.extra.weight"] = c.tensors["model.norm.weight"]; }, {"no error"});
  expect_refused(
      [](Checkpoint& c) {
        std::erase_if(c.tensors, [](const auto& t) { return t.first.find("router") != t.first.npos; });
      },
      {"no error"});
  EXPECT_TRUE(load_weights(folder.path()).layers[3].router_q.empty());
}

TEST(LoadWeights, FingerprintFollowsWhatABankDependsOn) {
  const TemporaryFolder folder;
  const auto fingerprint = [&](const std::function<void(Checkpoint&)>& change) {
    Checkpoint checkpoint("cosine-p8");
    change(checkpoint);
    checkpoint.write(folder.path());
    return load_weights(folder.path()).fingerprint;
  };
  const std::string plain = fingerprint([](Checkpoint&) {});
  EXPECT_EQ(fingerprint([](Checkpoint&) {}), plain);
  EXPECT_EQ(fingerprint([](Checkpoint& c) { c.config["msa_config"]["top_k_docs"] = 5; }), plain);
  EXPECT_NE(fingerprint([](Checkpoint& c) { c.config["msa_config"]["pooling_kernel_size"] = 16; }), plain);
  EXPECT_NE(fingerprint([](Checkpoint& c) { c.config["msa_config"]["router_layer_idx"] = "4,5"; }), plain);
  EXPECT_NE(fingerprint([](Checkpoint& c) { c.config["rope_theta"] = 10000; }), plain);
  EXPECT_NE(fingerprint([](Checkpoint& c) {
              c.tensors["model.norm.weight"] = c.tensors["model.layers.0.input_layernorm.weight"];
              c.tensors["model.layers.0.mlp.up_proj.weight"] = c.tensors["model.layers.0.mlp.gate_proj.weight"];
            }),
            plain);
  fingerprint([](Checkpoint&) {});
  write_file_atomically(folder / "msa_template.json", "{}");
  const std::string with_template = load_weights(folder.path()).fingerprint;
  EXPECT_NE(with_template, plain);
  write_file_atomically(folder / "msa_template.json", R"({"id_decoding": {"prior_weight": 1}})");
  EXPECT_EQ(load_weights(folder.path()).fingerprint, with_template);
  write_file_atomically(folder / "msa_template.json", R"({"stop": []})");
  EXPECT_NE(load_weights(folder.path()).fingerprint, with_template);
}

}  // namespace
}  // namespace msa
