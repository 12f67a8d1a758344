// A snapshot's routing keys on a GPU, scanned there: one copy serves every question, and later snapshots after it.
// What does not fit the GPU comes from host memory, in pieces, whenever it is needed (docs/gpu.md).
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "core/context.h"
#include "core/growing_memory.h"
#include "core/staging.h"
#include "router/key_placement.h"
#include "router/key_rows.h"
#include "router/router.h"

namespace msa {

struct CudaMark;

class DeviceKeys {
 public:
  /// Which documents take part.
  struct Scope {
    Tensor allowed;  // I8 [n_slots] on the GPU: 0 leaves a document out; empty: all take part
    std::span<const uint8_t> host_allowed =
        {};  // the same in host memory; needed only where not all keys are on the GPU
  };

  /// Whether the scan on a GPU takes banks of this shape: bf16 keys of a width that is a multiple of 32, up to 1,024.
  static bool fits(const BankShape& shape);

  /// Copies the keys of all documents to the context's GPU, as far as the options let them fit.
  DeviceKeys(Context& context, std::shared_ptr<const Snapshot> snapshot, const DeviceOptions& options = {});

  /// Made-up keys for a measurement: chunks [n_chunks] of documents [n_slots]; fill(layer_index, keys BF16
  /// [n_chunks, G·d] on the GPU) writes each layer's. Throws Error where they do not fit.
  struct Layout {
    std::vector<int32_t> slot_of_chunk;
    int64_t n_slots = 0;
  };
  using Fill = std::function<void(int layer_index, const Tensor& keys)>;
  DeviceKeys(Context& context, const BankShape& shape, const Layout& layout, const Fill& fill,
             const DeviceOptions& options = {});

  /// Takes over a later (or earlier) snapshot of the bank: only keys that are not there yet are copied. False where
  /// that cannot be: the keys are to be made anew. After an Error they must not be used.
  bool follow(Context& context, std::shared_ptr<const Snapshot> snapshot);

  /// Null where the keys are of no snapshot.
  const std::shared_ptr<const Snapshot>& snapshot() const { return snapshot_; }
  const KeyPlacement& placement() const { return placement_; }
  KeySizes sizes() const { return {n_rows_, n_layers_, width()}; }
  int64_t n_slots() const { return n_slots_; }
  /// Rows copied to the GPU so far, of each layer.
  int64_t uploaded_rows() const { return uploaded_rows_; }

  /// As Router::score for q F32 [n_routed, G·d]; queries are rounded to bf16. scores F32 [n_slots]; both on the GPU.
  void score(Context& context, int layer_index, const Tensor& q, const Scope& scope, const Tensor& scores) const;

  /// With quantised keys: the k best documents without reading all bf16 keys.
  bool has_bounds() const { return placement_.quantised_rows > 0; }
  struct Bounds {
    Tensor lower, upper;  // F32 [n_slots]: where score() would lie
    Tensor candidates;    // I32 [1]: chunks that the bounds could not rule out
  };
  /// scores: those of the k (1 … kMostBestScores) best documents as score() gives them, the others' not above that.
  void route(Context& context, int layer_index, const Tensor& q, const Scope& scope, int k, const Tensor& scores,
             const Bounds& bounds) const;

 private:
  struct Scan;
  struct HostRows;
  struct Pieces;

  int width() const { return kv_heads_ * head_dim_; }
  int64_t row_bytes() const { return int64_t{2} * width(); }
  int64_t held_bytes() const;
  KeyPlacement placement_for(Context& context, int64_t rows) const;
  void reserve(Context& context);
  void upload(Context& context, int64_t first_row);
  void set_slots(Context& context);
  void quantise(Context& context, int layer_index, const Tensor& keys, int64_t first_row);
  void report() const;

  Scan begin(Context& context, int layer_index, const Tensor& q) const;
  void permit(Context& context, const Scope& scope, Scan& scan) const;
  HostRows host_rows(int64_t begin, int64_t end, const Scope& scope) const;
  using Use = std::function<void(const Tensor& keys, const Tensor& slots, int64_t at)>;
  void for_each_piece(Context& context, int layer_index, const HostRows& rows, const Use& use) const;
  void scan_from_host(Context& context, int layer_index, const HostRows& rows, const Scan& scan) const;
  void score_candidates_from_host(Context& context, int layer_index, const Scope& scope, const Scan& scan,
                                  const int32_t* rows, const int32_t* count) const;

  DeviceOptions options_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::optional<KeyRows> rows_;  // of the snapshot
  KeyPlacement placement_;
  int64_t n_rows_ = 0, n_slots_ = 0;
  int n_layers_ = 0, kv_heads_ = 0, head_dim_ = 0;
  int64_t uploaded_rows_ = 0;
  std::vector<GrowingMemory> bf16_keys_;       // per layer [bf16_rows, G·d]
  std::vector<GrowingMemory> quantised_keys_;  // per layer [quantised_rows, quantised_key_bytes(G·d, bits)]
  std::vector<int32_t> slot_of_row_;           // [n_rows], -1: dead
  std::vector<int32_t> slot_starts_;           // [n_slots + 1] rows of the snapshot's documents
  Buffer device_slot_of_row_;
  std::shared_ptr<Pieces> pieces_;  // of keys on their way
};

/// The snapshot's keys on the context's GPU; null on the CPU and for banks that the scan there does not take. `kept`:
/// those of the last call, or null; they follow the bank where nobody else uses them.
std::shared_ptr<const DeviceKeys> device_keys(Context& context, const std::shared_ptr<const Snapshot>& snapshot,
                                              std::shared_ptr<DeviceKeys>& kept, const DeviceOptions& options = {});

}  // namespace msa
