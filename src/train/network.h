// The forward pass of training: the same steps as model/transformer.h, differentiable, on packed batches.
#pragma once
#include <torch/torch.h>

#include <vector>

#include "model/config.h"
#include "train/attention.h"
#include "train/batch.h"
#include "train/layer_ops.h"
#include "train/recompute.h"
#include "train/routing_scores.h"

namespace msa::train {

using torch::Tensor;

/// One layer as it is this step: LoRA merged, in the type of the computation. Matrices [out, in].
struct LayerTensors {
  Tensor input_norm;           // float32 [hidden]
  Tensor qkv;                  // [(H + 2G)·d, hidden]
  Tensor o;                    // [hidden, H·d]
  Tensor q_norm, k_norm;       // float32 [d]; undefined for Llama
  Tensor router_q, router_k;   // [H·d, hidden], [G·d, hidden]; undefined outside the routing layers
  Tensor post_attention_norm;  // float32 [hidden]
  Tensor gate_up;              // [2·intermediate, hidden]
  Tensor down;                 // [hidden, intermediate]
};

struct NetworkTensors {
  Tensor embedding;  // [vocab, hidden]
  std::vector<LayerTensors> layers;
  Tensor final_norm;     // float32 [hidden]
  Tensor lm_head;        // [vocab, hidden]
  Tensor layer_weights;  // float32 [routing layers], sum 1: of the layers in the mean score
};

/// Packed sequences on the device.
struct Pack {
  Tensor tokens;     // int64 [T]
  Tensor positions;  // int64 [T]
  Segments segments;

  /// `offset`: position of each sequence's first token.
  static Pack from(const std::vector<int32_t>& tokens, const std::vector<int64_t>& starts, int64_t offset,
                   torch::Device device);
};

/// Chunks of a pack whose sequence 0 is the template head.
struct Chunks {
  int64_t head = 0;     // rows before the first chunk
  Tensor starts;        // int32 [chunks + 1] rows of the pack
  Tensor counts;        // float32 [chunks, 1] tokens of each
  RowOwners documents;  // each document's chunks, the head left out

  static Chunks from(const std::vector<int64_t>& starts, int chunk_tokens, torch::Device device);
};

/// What one layer of stage 1 leaves behind.
struct LayerMemory {
  Tensor head_k, head_v;  // [head, G, d], every layer
  Tensor k, v;            // [chunks, G, d] means; routing layers only
  Tensor router_k;        // [chunks, G·d] means, normalised per head under cosine
};

/// Samples of a batch, on the device.
struct Samples {
  Pack pack;
  RowOwners routed;    // rows of routed_rows of each sample
  Tensor routed_rows;  // int64 [R] rows of the pack that route
  Tensor attends;      // bool [Q, 1]: false for plain language-model samples
  Tensor only;         // bool [Q, D] or undefined: documents that a sample may attend to
};

struct QueryResult {
  Tensor hidden;               // [S, hidden], before the final norm
  std::vector<Tensor> scores;  // per routing layer float32 [Q, D]
  std::vector<Tensor> late;    // the same, late scores
};

/// Scores of the routing layers [Q, D] → their weighted mean, by which documents are ranked. layer_weights float32
/// [routing layers], sum 1.
Tensor mean_score(const std::vector<Tensor>& scores, const Tensor& layer_weights);

class Network {
 public:
  /// `type`: of the products (float32 or bfloat16).
  Network(const ModelConfig& config, torch::Dtype type) : config_(config), type_(type) {}

  /// Stage 1; `mode`: what is kept of each layer for the backward pass.
  std::vector<LayerMemory> encode(const NetworkTensors& w, const Pack& pack, const Chunks& chunks,
                                  Recompute mode) const;

  struct QueryOptions {
    int top_k = 16;
    Tensor preferred;  // bool [Q, D] or undefined: attended whatever their scores (forced gold)
  };
  /// Stage 2 and 3 at once. Selections carry no gradient, contents and scores do.
  QueryResult query(const NetworkTensors& w, const std::vector<LayerMemory>& memory, const RowOwners& documents,
                    const Samples& samples, const QueryOptions& options) const;

  /// Final norm and output projection of rows of hidden: [N, hidden] → [N, vocab].
  Tensor logits(const NetworkTensors& w, const Tensor& hidden) const;

  const ModelConfig& config() const { return config_; }
  torch::Dtype type() const { return type_; }

 private:
  struct Projections {
    Tensor h;  // normed input
    Heads heads;
  };
  Projections project(const LayerTensors& w, const Tensor& x, const Tensor& cosine, const Tensor& sine) const;
  Tensor finish(const LayerTensors& w, const Tensor& x, const Tensor& attention) const;
  LayerMemory pool(const LayerTensors& w, const Projections& p, const Chunks& chunks, bool routing) const;
  Tensor routing_queries(const LayerTensors& w, const Tensor& h) const;
  std::pair<Tensor, Tensor> rotation(const Tensor& positions) const;

  const ModelConfig config_;
  torch::Dtype type_;
};

}  // namespace msa::train
