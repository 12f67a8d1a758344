// A snapshot's routing keys on a GPU, scanned there: one copy serves every question of that snapshot.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "core/context.h"
#include "router/router.h"

namespace msa {

class DeviceKeys {
 public:
  /// What Router is made with.
  struct Scoring {
    Similarity similarity;
    int n_heads;
    Tensor allowed;  // I8 [n_slots] on the GPU: 0 leaves a document out; empty: all take part
  };

  /// Whether the scan on a GPU takes banks of this shape: bf16 keys of a width that is a multiple of 32, up to 1,024.
  static bool fits(const BankShape& shape);

  /// Chunks [n_chunks] of documents [n_slots]; fill(layer_index, keys BF16 [n_chunks, G·d] on the GPU) writes each
  /// layer's keys.
  struct Layout {
    std::vector<int32_t> slot_of_chunk;
    int64_t n_slots = 0;
  };
  using Fill = std::function<void(int layer_index, const Tensor& keys)>;
  DeviceKeys(Context& context, const BankShape& shape, const Layout& layout, const Fill& fill);

  /// Copies the keys of all live documents, layer by layer, to the context's GPU. Throws Error when they do not fit.
  DeviceKeys(Context& context, std::shared_ptr<const Snapshot> snapshot);

  /// Null where the keys are of no snapshot.
  const std::shared_ptr<const Snapshot>& snapshot() const { return snapshot_; }

  int64_t n_slots() const { return n_slots_; }

  /// As Router::score for q F32 [n_routed, H·d]; queries are rounded to bf16. scores F32 [n_slots]; both on the GPU.
  void score(Context& context, int layer_index, const Tensor& q, const Scoring& how, const Tensor& scores) const;

 private:
  std::shared_ptr<const Snapshot> snapshot_;
  int64_t n_slots_ = 0;
  int64_t n_chunks_ = 0;  // of live documents
  int kv_heads_;
  int head_dim_;
  std::vector<Buffer> keys_;  // per layer BF16 [n_chunks, G·d]
  Buffer slot_of_chunk_;      // I32 [n_chunks]
};

/// The snapshot's keys on the context's GPU; null on the CPU and for banks that the scan there does not take. `kept`:
/// those of the last call, or null; replaced where they are another snapshot's.
std::shared_ptr<const DeviceKeys> device_keys(Context& context, const std::shared_ptr<const Snapshot>& snapshot,
                                              std::shared_ptr<const DeviceKeys>& kept);

}  // namespace msa
