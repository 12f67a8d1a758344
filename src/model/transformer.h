// The forward pass. One layer loop serves both stages; what differs between them is the Stage handed in.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/context.h"
#include "core/staging.h"
#include "model/kv_cache.h"
#include "model/memory.h"
#include "model/weights.h"
#include "ops/indices.h"
#include "ops/linear.h"
#include "ops/norm_rope.h"
#include "ops/rope.h"

namespace msa {

struct CudaMark;

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
  // As the product made them, rows strided; F32 on the CPU, the type of h on CUDA.
  Tensor q;           // [T, H, d]
  Tensor k;           // [T, G, d]
  Tensor v;           // [T, G, d]
  NormRope how;       // what q and k need before they meet
  Indices positions;  // [T]

  /// Norms and rotates q and k in place.
  void rotate(Context& context) const { norm_rope(context, how, positions, q, k); }
  /// What one of several sequences that share a pass sees: tokens [begin, end).
  LayerActivations slice(int64_t begin, int64_t end) const {
    const auto rows = [&](const Tensor& t) { return t.slice_rows(begin, end); };
    return {layer, weights, rows(h), rows(q), rows(k), rows(v), how, positions.slice(begin, end)};
  }
};

/// The part of a layer that depends on what the tokens may see.
class Stage {
 public:
  virtual ~Stage() = default;
  /// Before the layers of a pass over T tokens: room for results, indices onto the device.
  virtual void begin(Context& context) = 0;
  /// Attention of all tokens into out F32|BF16 [T, H, d]. Returns false when nothing behind this point is needed:
  /// the forward pass ends there (encoding needs neither the last layer's attention nor its MLP).
  virtual bool attend(Context& context, const LayerActivations& in, const Tensor& out) = 0;
};

/// Scratch of one forward pass; reused between calls, never shared between threads. On CUDA one pass may still be under
/// way when the next is prepared, not more.
struct Workspace {
  Buffer indices, x, h, qkv, attention, gate_up, mlp, logits_input;
  std::array<Staging, 2> host_indices;  // in turns
  size_t passes = 0;
};

/// Views of host memory and of the workspace.
struct ForwardInputs {
  Indices tokens, positions;  // [T]
};

class Transformer {
 public:
  struct Options {
    LinearFormat format = LinearFormat::kF32;
    DecodeFormat decode = DecodeFormat::kSame;
  };

  /// The weights go to the context's device; the forward pass then runs on contexts of that device.
  Transformer(Context& context, ModelWeights weights, const Options& options);

  const ModelConfig& config() const { return weights_.config; }
  Device device() const { return device_; }
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

  /// The two halves of forward(): checks and everything that goes to the device, then the layers alone. What the layers
  /// launch on CUDA can be captured in a graph; prepare() before each launch puts in other tokens.
  ForwardInputs prepare(Context& context, Workspace& workspace, std::span<const int32_t> tokens,
                        std::span<const int32_t> positions, Stage& stage) const;
  Tensor layers(Context& context, Workspace& workspace, const ForwardInputs& inputs, Stage& stage) const;

  /// x F32 [T, hidden] → out F32 [T, vocab]: final norm and output projection.
  void logits(Context& context, Workspace& workspace, const Tensor& x, const Tensor& out) const;
  /// x F32 [T, hidden] → out F32 [T, hidden]: the final norm alone.
  void final_norm(Context& context, const Tensor& x, const Tensor& out) const;

 private:
  void check_inputs(std::span<const int32_t> tokens, std::span<const int32_t> positions) const;

  void move_to_device(Context& context);

  ModelWeights weights_;
  Device device_;
  std::vector<Buffer> device_memory_;  // embedding and norms on CUDA
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
  void begin(Context& context) override;
  bool attend(Context& context, const LayerActivations& in, const Tensor& out) override;
  /// Whether the pass read the cache's length on the device in every layer, so that a captured one can be repeated.
  bool is_repeatable() const { return is_repeatable_; }

 private:
  void route(Context& context, const LayerActivations& in);

  const ModelConfig& config_;
  KvCache& cache_;
  Memory* memory_;
  bool is_repeatable_ = true;
  std::vector<int32_t> routed_rows_;
  Indices routed_;  // of routed_rows_, once uploaded
  Buffer routed_memory_, routed_h_, router_q_;
};

/// Room of one encoding pass, reused between passes: freeing memory of a GPU would wait for all of its work.
struct EncodeMemory {
  Buffer sequences, router_k, results, converted;
  Staging host;
};

/// Stage 1: packed documents, each alone; pools every routing layer's K, V and routing keys over chunks.
class EncodeStage : public Stage {
 public:
  /// Sequence s holds rows [starts[s], starts[s + 1]). With `keep_last_layer` the pass runs to its end.
  EncodeStage(const ModelConfig& config, std::span<const int64_t> starts, EncodeMemory& memory,
              bool keep_last_layer = false);
  void begin(Context& context) override;
  bool attend(Context& context, const LayerActivations& in, const Tensor& out) override;

  int64_t n_chunks() const { return n_chunks_; }
  /// Pooled results of one routing layer: [n_chunks, G·d] each, of the type that finish() was given.
  struct Pooled {
    Tensor k, v, router_k;
  };
  /// In host memory; `routing_index` counts in routing_layers.
  Pooled pooled(int routing_index) const;
  /// Behind the forward pass: makes the results F32 or BF16.
  void finish(Context& context, DType dtype);
  /// Brings them into host memory, waiting for the pass (but for none that was started after it).
  void download(Context& context);

 private:
  Pooled slice(const Tensor& all, int64_t routing_index) const;
  void pool(Context& context, const LayerActivations& in, const Pooled& out);

  const ModelConfig& config_;
  std::span<const int64_t> starts_;
  Sequences sequences_;  // of starts_, once uploaded
  bool keep_last_layer_;
  int64_t n_chunks_;
  Tensor results_;  // F32|BF16 [routing layers · 3 (K|V|router K), n_chunks · G·d]
  EncodeMemory& memory_;
  std::shared_ptr<CudaMark> done_;
};

}  // namespace msa
