// A complete model directory small enough for tests: random weights, byte-level vocabulary without merges.
#pragma once
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace msa::testing {

struct TinyShape {
  int layers = 4, hidden = 64, heads = 4, kv_heads = 2, head_dim = 16, intermediate = 96, chunk = 8, top_k = 3;
  int max_positions = 1024;
  float scale = 1.0f;  // of the random weights: larger ones give a more decided model
};

/// A folder that is removed with this object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "msa-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// GPT-2's printable stand-in for each byte, as UTF-8.
inline std::vector<std::string> byte_symbols() {
  std::vector<std::string> out;
  int extra = 0;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const int code = printable ? b : 256 + extra++;
    std::string s;
    if (code < 0x80) {
      s += static_cast<char>(code);
    } else {
      s += static_cast<char>(0xc0 | (code >> 6));
      s += static_cast<char>(0x80 | (code & 0x3f));
    }
    out.push_back(s);
  }
  return out;
}

inline const std::vector<std::string>& special_tokens() {
  static const std::vector<std::string> tokens{"<|im_start|>", "<|im_end|>", "<file_sep>", "<issue_closed>"};
  return tokens;
}

inline void write_tokenizer(const std::filesystem::path& directory) {
  using Json = nlohmann::json;
  Json vocab = Json::object();
  const auto symbols = byte_symbols();
  for (int b = 0; b < 256; ++b) vocab[symbols[static_cast<size_t>(b)]] = b;
  Json added = Json::array();
  for (size_t i = 0; i < special_tokens().size(); ++i) {
    vocab[special_tokens()[i]] = 256 + i;
    added.push_back({{"id", 256 + i},
                     {"content", special_tokens()[i]},
                     {"special", true},
                     {"normalized", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"single_word", false}});
  }
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const Json tokenizer = {{"version", "1.0"},
                          {"added_tokens", added},
                          {"normalizer", nullptr},
                          {"pre_tokenizer", byte_level},
                          {"post_processor", nullptr},
                          {"decoder", byte_level},
                          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
  std::ofstream(directory / "tokenizer.json") << tokenizer.dump();
}

inline void write_weights(const std::filesystem::path& directory, const TinyShape& s, uint64_t seed) {
  nlohmann::json header = nlohmann::json::object();
  std::vector<float> data;
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  const auto add = [&](const std::string& name, std::vector<int> dims) {
    size_t n = 1;
    for (const int d : dims) n *= static_cast<size_t>(d);
    const size_t begin = data.size();
    const bool norm = dims.size() == 1;
    const float scale = norm ? 0.0f : s.scale / std::sqrt(static_cast<float>(dims.back()));
    for (size_t i = 0; i < n; ++i) data.push_back(norm ? 1.0f : normal(random) * scale);
    header[name] = {{"dtype", "F32"}, {"shape", dims}, {"data_offsets", {begin * 4, data.size() * 4}}};
  };
  const int q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  add("model.embed_tokens.weight", {260, s.hidden});
  add("model.norm.weight", {s.hidden});
  for (int l = 0; l < s.layers; ++l) {
    const std::string p = "model.layers." + std::to_string(l) + ".";
    add(p + "input_layernorm.weight", {s.hidden});
    add(p + "post_attention_layernorm.weight", {s.hidden});
    add(p + "self_attn.q_proj.weight", {q, s.hidden});
    add(p + "self_attn.k_proj.weight", {kv, s.hidden});
    add(p + "self_attn.v_proj.weight", {kv, s.hidden});
    add(p + "self_attn.o_proj.weight", {s.hidden, q});
    add(p + "mlp.gate_proj.weight", {s.intermediate, s.hidden});
    add(p + "mlp.up_proj.weight", {s.intermediate, s.hidden});
    add(p + "mlp.down_proj.weight", {s.hidden, s.intermediate});
    if (l < s.layers / 2) continue;
    add(p + "self_attn.router_q_proj.0.weight", {q, s.hidden});
    add(p + "self_attn.router_k_proj.0.weight", {kv, s.hidden});
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::ofstream out(directory / "model.safetensors", std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), 8);
  out << text;
  out.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size() * 4));
}

inline void write_config(const std::filesystem::path& directory, const TinyShape& s) {
  std::string routing;
  for (int l = s.layers / 2; l < s.layers; ++l) routing += (routing.empty() ? "" : ",") + std::to_string(l);
  const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"vocab_size", 260},
                                 {"hidden_size", s.hidden},
                                 {"intermediate_size", s.intermediate},
                                 {"num_hidden_layers", s.layers},
                                 {"num_attention_heads", s.heads},
                                 {"num_key_value_heads", s.kv_heads},
                                 {"head_dim", s.head_dim},
                                 {"hidden_act", "silu"},
                                 {"max_position_embeddings", s.max_positions},
                                 {"rope_theta", 10000.0},
                                 {"rms_norm_eps", 1e-5},
                                 {"tie_word_embeddings", true},
                                 {"attention_bias", false},
                                 {"msa_config",
                                  {{"router_layer_idx", routing},
                                   {"top_k_docs", s.top_k},
                                   {"pooling_kernel_size", s.chunk},
                                   {"aux_loss_method", "INFONCE_DECOUPLE"}}}};
  std::ofstream(directory / "config.json") << config.dump(1);
}

inline void write_template(const std::filesystem::path& directory) {
  std::ofstream(directory / "msa_template.json") << R"({
 "version": 1,
 "head": ["<|im_start|>", "user\n"],
 "document": ["<|im_start|>", "[{id}]", ". ", "{text}", "[{id}]", "<|im_end|>"],
 "query": ["\nAnswer.\n", "{question}", "\nReturn documents.\n", "<|im_end|>", "\n", "<|im_start|>"],
 "cite": ["[{id}]", "<file_sep>"],
 "fetched": ["[{id}]", ". ", "{text}", "\n", "<file_sep>"],
 "end_of_retrieve": "<issue_closed>",
 "final": ["<|im_start|>", "The question is: ", "{question}", "\n", "<file_sep>"],
 "answer_prefix": "Answer:",
 "stop": ["<|im_end|>"],
 "id_decoding": {"prior_weight": 1.0, "prior_temperature": 0.03, "rerank": {
  "documents": 0, "weight": 1, "confident": 1, "question": ["<|im_start|>", "{question}", "\n"],
  "document": ["Text: ", "{text}", "\n"], "ask": ["Does it answer ", "{question}", "\n"], "yes": "yes", "no": "no"}}
})";
}

inline void write_tiny_model(const std::filesystem::path& directory, const TinyShape& shape = {}, uint64_t seed = 1) {
  std::filesystem::create_directories(directory);
  write_config(directory, shape);
  write_weights(directory, shape, seed);
  write_tokenizer(directory);
  write_template(directory);
}

}  // namespace msa::testing
