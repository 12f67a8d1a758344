// The shape of a model and of its memory, read from config.json or from a GGUF file's header.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace msa {

class GgufFile;

enum class Architecture { kQwen3, kLlama };  // Qwen3 normalises each q and k head; Llama does not

/// How a routing query meets a routing key. The paper and its training use cosine for both INFONCE losses; the public
/// inference code normalises for "INFONCE" alone. `router_similarity` in msa_config decides where it is given.
enum class RouterSimilarity { kCosine, kScaledDot };

struct MemoryConfig {
  std::vector<int> routing_layers;  // ascending
  int chunk_tokens = 64;            // P
  int top_k_documents = 16;
  RouterSimilarity similarity = RouterSimilarity::kCosine;
  /// [routing layers] what a layer's scores are multiplied by, mean 1; empty: all 1. The mean over the layers ranks
  /// documents; within a layer nothing changes. Learnt: tensor router_layer_weights of the weights or the adapter.
  std::vector<float> layer_weights;

  float layer_weight(size_t routing_index) const { return layer_weights.empty() ? 1.0f : layer_weights[routing_index]; }
};

struct ModelConfig {
  Architecture architecture = Architecture::kLlama;
  int n_layers = 0;  // L
  int hidden = 0;
  int n_heads = 0;     // H
  int n_kv_heads = 0;  // G
  int head_dim = 0;    // d
  int intermediate = 0;
  int vocab = 0;
  int max_positions = 0;
  float rope_theta = 10000.0f;
  float rms_eps = 1e-5f;
  bool tied_embeddings = false;
  MemoryConfig memory;

  bool is_routing(int layer) const;
  int q_size() const { return n_heads * head_dim; }
  int kv_size() const { return n_kv_heads * head_dim; }
};

/// From a Hugging Face config.json (MSAForCausalLM, Qwen3ForCausalLM, LlamaForCausalLM). Without routing layers in
/// `msa_config` the upper half of the layers routes. Throws Error naming file and field on anything unsupported.
ModelConfig read_config(const std::string& path);
/// From the metadata of a GGUF file (llama, qwen3); its memory part is the default.
ModelConfig read_config(const GgufFile& file);

/// The same config as the content of a config.json.
nlohmann::ordered_json config_to_json(const ModelConfig& config);

}  // namespace msa
