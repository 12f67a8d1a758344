// The forward pass. One layer loop serves both stages; what differs between them is the Stage handed in.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/context.h"
#include "model/kv_cache.h"
#include "model/memory.h"
#include "model/weights.h"
#include "ops/linear.h"
#include "ops/rope.h"

namespace msa {

/// One layer, weights prepared for the processor at hand.
struct TransformerLayer {
  Tensor input_norm;           // F32 [hidden]
  Linear qkv;                  // hidden → H·d + 2·G·d
  Tensor q_norm, k_norm;       // F32 [d], Qwen3 only
  Linear router_q, router_k;   // hidden → H·d, hidden → G·d; routing layers only
  Linear o;                    // H·d → hidden
  Tensor post_attention_norm;  // F32 [hidden]
  Linear gate_up;              // hidden → 2·intermediate
  Linear down;                 // intermediate → hidden
};

/// What a stage gets to see of one layer: views that live until it returns.
struct LayerActivations {
  int layer = 0;
  const TransformerLayer* weights = nullptr;
  Tensor h;  // F32|BF16 [T, hidden], the layer's normed input
  Tensor q;  // F32 [T, H, d], normed and rotated (rows strided)
  Tensor k;  // F32 [T, G, d], normed and rotated (rows strided)
  Tensor v;  // F32 [T, G, d] (rows strided)
};

/// The part of a layer that depends on what the tokens may see.
class Stage {
 public:
  virtual ~Stage() = default;
  /// Attention of all tokens into out F32|BF16 [T, H, d]. Returns false when nothing behind this point is needed:
  /// the forward pass ends there (encoding needs neither the last layer's attention nor its MLP).
  virtual bool attend(Context& context, const LayerActivations& in, const Tensor& out) = 0;
};

/// Scratch of one forward pass; reused between calls, never shared between threads.
struct Workspace {
  Buffer x, h, qkv, attention, gate_up, mlp, logits_input;
};

class Transformer {
 public:
  struct Options {
    LinearFormat format = LinearFormat::kF32;
    DecodeFormat decode = DecodeFormat::kSame;
  };

  Transformer(Context& context, ModelWeights weights, const Options& options);

  const ModelConfig& config() const { return weights_.config; }
  const std::string& fingerprint() const { return weights_.fingerprint; }
  /// Bytes of weights that decoding one token reads: what bounds its speed.
  int64_t decode_bytes() const;
  /// Type of the activations between products: BF16 for the bf16 format, else F32.
  DType activation_dtype() const { return activation_; }

  /// Runs tokens [T] at positions [T] through the layers. Returns the residual stream F32 [T, hidden] (in the
  /// workspace), valid until the next call; meaningless when the stage ended the pass early.
  /// Throws Error for a token or a position out of range.
  Tensor forward(Context& context, Workspace& workspace, std::span<const int32_t> tokens,
                 std::span<const int32_t> positions, Stage& stage) const;

  /// x F32 [T, hidden] → out F32 [T, vocab]: final norm and output projection.
  void logits(Context& context, Workspace& workspace, const Tensor& x, const Tensor& out) const;
  /// x F32 [T, hidden] → out F32 [T, hidden]: the final norm alone.
  void final_norm(Context& context, const Tensor& x, const Tensor& out) const;

 private:
  void check_inputs(std::span<const int32_t> tokens, std::span<const int32_t> positions) const;

  ModelWeights weights_;
  std::vector<TransformerLayer> layers_;
  Linear lm_head_;
  RopeTable rope_;
  DType activation_ = DType::kF32;
};

/// Stages 2 and 3: tokens see the cache, themselves causally and, in routing layers, the memory's selection.
class QueryStage : public Stage {
 public:
  /// `memory` may be null: then nothing is routed and nothing but the cache is seen. `routed` [T] marks the tokens
  /// that route; when none does, the selection of the last route stays in force.
  QueryStage(const ModelConfig& config, KvCache& cache, Memory* memory, std::span<const uint8_t> routed);
  bool attend(Context& context, const LayerActivations& in, const Tensor& out) override;

 private:
  void route(Context& context, const LayerActivations& in);

  const ModelConfig& config_;
  KvCache& cache_;
  Memory* memory_;
  std::vector<int64_t> routed_rows_;
  Buffer routed_h_, router_q_;
};

/// Stage 1: packed documents, each alone; pools every routing layer's K, V and routing keys over chunks.
class EncodeStage : public Stage {
 public:
  /// Sequence s holds rows [starts[s], starts[s + 1]). With `keep_last_layer` the pass runs to its end.
  EncodeStage(const ModelConfig& config, std::span<const int64_t> starts, bool keep_last_layer = false);
  bool attend(Context& context, const LayerActivations& in, const Tensor& out) override;

  int64_t n_chunks() const { return n_chunks_; }
  /// Pooled results of one routing layer (index into routing_layers), F32 [n_chunks, G·d] each.
  struct Pooled {
    Buffer k, v, router_k;
  };
  const Pooled& pooled(int routing_index) const { return pooled_[static_cast<size_t>(routing_index)]; }

 private:
  void pool(Context& context, const LayerActivations& in, Pooled& out);

  const ModelConfig& config_;
  std::span<const int64_t> starts_;
  bool keep_last_layer_;
  int64_t n_chunks_;
  std::vector<Pooled> pooled_;
  Buffer router_k_;  // F32 [T, G·d]
};

}  // namespace msa
