// Model directories for tests: variants of the golden checkpoints in a temporary folder.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "core/quant.h"
#include "io/file.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/weights.h"
#include "tests/io/gguf_builder.h"

namespace msa {

inline const std::string kGoldens = MSA_SOURCE_DIR "/tests/data/conformance/";
inline const std::string kDefaultModel = MSA_SOURCE_DIR "/models/smollm2-135m-msa";

class TemporaryFolder {
 public:
  TemporaryFolder() {
    path_ = (std::filesystem::temp_directory_path() / "msa_model_XXXXXX").string();
    if (::mkdtemp(path_.data()) == nullptr) throw Error("cannot be created", path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::vector<float> values_of(const Tensor& t) {
  std::vector<float> values(static_cast<size_t>(t.elements()));
  const int64_t n = t.row_elements();
  for (int64_t i = 0; i < t.rows(); ++i)
    dequantise_row(t.dtype, t.row<void>(i), n, &values[static_cast<size_t>(i * n)]);
  return values;
}

inline std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

inline void expect_message(const std::function<void()>& action, const std::vector<std::string>& parts) {
  const std::string message = message_of(action);
  for (const std::string& part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks " << part;
}

/// A golden checkpoint with its tensors in hand, to be changed and written elsewhere.
struct Checkpoint {
  explicit Checkpoint(const std::string& name)
      : config(read_json_file(kGoldens + name + "/config.json")),
        file(SafetensorsFile::open(kGoldens + name + "/model.safetensors")),
        tensors(file.tensors()) {}

  void write(const std::string& folder) const {
    std::filesystem::create_directories(folder);
    write_file_atomically(folder + "/config.json", config.dump());
    write_safetensors(folder + "/model.safetensors", {tensors.begin(), tensors.end()});
  }

  nlohmann::json config;
  SafetensorsFile file;
  std::map<std::string, Tensor> tensors;
};

/// llama-p8 as a GGUF file, q and k in the interleaved order of such files; matrices stored as `type`.
inline std::string llama_gguf(const Checkpoint& checkpoint, DType type) {
  const auto size = [&](const char* key) { return checkpoint.config[key].get<uint32_t>(); };
  GgufBuilder builder;
  builder.add("general.architecture", "llama");
  builder.add("llama.block_count", size("num_hidden_layers"));
  builder.add("llama.context_length", size("max_position_embeddings"));
  builder.add("llama.embedding_length", size("hidden_size"));
  builder.add("llama.feed_forward_length", size("intermediate_size"));
  builder.add("llama.attention.head_count", size("num_attention_heads"));
  builder.add("llama.attention.head_count_kv", size("num_key_value_heads"));
  builder.add("llama.rope.freq_base", checkpoint.config["rope_theta"].get<float>());
  builder.add("llama.attention.layer_norm_rms_epsilon", checkpoint.config["rms_norm_eps"].get<float>());
  builder.add("tokenizer.ggml.model", "gpt2");
  builder.add("tokenizer.ggml.pre", "smollm");
  builder.add("tokenizer.ggml.tokens", std::vector<std::string>{"<|im_end|>", "a", "b", "ab"});
  builder.add("tokenizer.ggml.token_type", std::vector<int32_t>{3, 1, 1, 1});
  builder.add("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  builder.add("tokenizer.ggml.eos_token_id", 0u);

  const int64_t head_dim = size("head_dim");
  const auto add = [&](const std::string& name, const std::string& from, bool rotated) {
    const Tensor source = checkpoint.tensors.at(from);
    const std::vector<float> values = values_of(source);
    const int64_t n = source.row_elements();
    if (source.rank == 1) return builder.add_tensor(name, source);
    Tensor stored(nullptr, type, {source.rows(), n});
    std::vector<char> bytes(static_cast<size_t>(stored.bytes()));
    stored.data = bytes.data();
    for (int64_t row = 0; row < source.rows(); ++row) {
      const int64_t head = row / head_dim, half = row % head_dim / (head_dim / 2), i = row % (head_dim / 2);
      const int64_t target = rotated ? head * head_dim + 2 * i + half : row;
      quantise_row(type, &values[static_cast<size_t>(row * n)], n, stored.row<void>(target));
    }
    builder.add_tensor(name, stored);
  };
  add("token_embd.weight", "model.embed_tokens.weight", false);
  add("output_norm.weight", "model.norm.weight", false);
  for (uint32_t l = 0; l < size("num_hidden_layers"); ++l) {
    const std::string to = "blk." + std::to_string(l) + ".", from = "model.layers." + std::to_string(l) + ".";
    add(to + "attn_norm.weight", from + "input_layernorm.weight", false);
    add(to + "ffn_norm.weight", from + "post_attention_layernorm.weight", false);
    add(to + "attn_q.weight", from + "self_attn.q_proj.weight", true);
    add(to + "attn_k.weight", from + "self_attn.k_proj.weight", true);
    add(to + "attn_v.weight", from + "self_attn.v_proj.weight", false);
    add(to + "attn_output.weight", from + "self_attn.o_proj.weight", false);
    add(to + "ffn_gate.weight", from + "mlp.gate_proj.weight", false);
    add(to + "ffn_up.weight", from + "mlp.up_proj.weight", false);
    add(to + "ffn_down.weight", from + "mlp.down_proj.weight", false);
  }
  return builder.build();
}

/// A small LoRA adapter for llama-p8 on q_proj of layer 0 and down_proj of layer 1, with the routers of the checkpoint.
struct AdapterFiles {
  static constexpr int kRank = 5;  // not a multiple of the merge's step

  explicit AdapterFiles(const Checkpoint& checkpoint) {
    add("model.layers.0.self_attn.q_proj", 96, 96);
    add("model.layers.1.mlp.down_proj", 96, 224);
    for (const auto& [name, tensor] : checkpoint.tensors) {
      if (name.find("router") != name.npos) tensors["base_model.model." + name] = tensor;
    }
    settings = {{"peft_type", "LORA"}, {"r", kRank}, {"lora_alpha", 10}, {"bias", "none"}, {"fan_in_fan_out", false}};
  }

  void add(const std::string& module, int64_t out, int64_t in) {
    const std::string name = "base_model.model." + module;
    tensors[name + ".lora_A.weight"] = fill(kRank, in);
    tensors[name + ".lora_B.weight"] = fill(out, kRank);
  }

  void write(const std::string& folder) const {
    std::filesystem::create_directories(folder);
    write_file_atomically(folder + "/adapter_config.json", settings.dump());
    write_safetensors(folder + "/adapter.safetensors", {tensors.begin(), tensors.end()});
  }

  nlohmann::json settings;
  std::map<std::string, Tensor> tensors;

 private:
  Tensor fill(int64_t rows, int64_t columns) {
    Tensor t = memory_.emplace_back().tensor(DType::kF32, {rows, columns});
    for (int64_t i = 0; i < t.elements(); ++i) t.as<float>()[i] = static_cast<float>(random_() % 200) / 1000.0f - 0.1f;
    return t;
  }

  std::vector<Buffer> memory_;
  std::mt19937 random_{7};
};

}  // namespace msa
