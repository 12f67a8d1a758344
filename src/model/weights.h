// Weights of a model directory as named views: Hugging Face names and row order, whatever the file's own are.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "model/config.h"

namespace msa {

/// Views of one layer; a LoRA adapter is already merged where there is one. Matrices are [out, in] of any type.
struct LayerWeights {
  Tensor input_norm;           // F32 [hidden]
  Tensor q, k, v, o;           // [H·d, hidden], [G·d, hidden], [G·d, hidden], [hidden, H·d]
  Tensor q_norm, k_norm;       // F32 [d]; empty for Llama
  Tensor router_q, router_k;   // [H·d, hidden], [G·d, hidden]; empty outside the routing layers
  Tensor post_attention_norm;  // F32 [hidden]
  Tensor gate, up, down;       // [intermediate, hidden] twice, [hidden, intermediate]
};

/// Owns (or maps) the memory that all its views point into.
struct ModelWeights {
  ModelConfig config;
  Tensor embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  Tensor final_norm;        // F32 [hidden]
  Tensor lm_head;           // [vocab, hidden]; the embedding itself when tied
  std::string fingerprint;  // 32 hex digits over config and every weight file's content, adapter included
  std::vector<std::shared_ptr<const void>> owners;
};

/// Where weights come from: a model directory or a .gguf file, and an adapter (file or folder; "" for none).
struct WeightSource {
  std::string base;
  std::string adapter;
};

/// Throws Error naming file, tensor and what was expected. Without router projections anywhere loading succeeds and
/// every router_q, router_k stays empty.
ModelWeights load_weights(const WeightSource& source);

/// Reads a model directory: Hugging Face layout, or base.gguf; with adapter.safetensors and adapter_config.json where
/// they are there.
ModelWeights load_weights(const std::string& directory);

}  // namespace msa
