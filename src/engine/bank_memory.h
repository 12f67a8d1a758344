// The memory that the model's forward pass sees: a bank's snapshot behind the router.
#pragma once
#include <memory>
#include <vector>

#include "bank/snapshot.h"
#include "core/staging.h"
#include "engine/device_bank.h"
#include "engine/device_routing.h"
#include "engine/routed_memory.h"
#include "model/config.h"
#include "router/router.h"

namespace msa {

/// content [chunks, 2 (K|V), G·d] as the model takes it.
KeyValueSpan content_span(const Tensor& content, const ModelConfig& config);

/// How the queries of a routing layer become ready for the keys.
HeadFold head_fold(const ModelConfig& config, size_t routing_index);

/// One query's view of one snapshot. Keeps, until the next hop, each layer's scores and selection; with DeviceKeys the
/// scores stay on the GPU, and the context of the last route() must live as long as they are asked for.
class BankMemory : public RoutedMemory {
 public:
  /// `keys` (may be null): the snapshot's on the GPU that the model runs on; without them the CPU scans the snapshot.
  /// `hot` (may be null): content that lies there already.
  BankMemory(const ModelConfig& config, std::shared_ptr<const Snapshot> snapshot, MemoryQuery query,
             std::shared_ptr<const DeviceKeys> keys = nullptr, std::shared_ptr<ContentCache> hot = nullptr);

  /// With keys on a GPU the choice is only on its way when this returns: gather() waits for it, and fetches content.
  void route(Context& context, int layer, const Tensor& q) override;
  /// The same for a query F32 [n, G·d] that fold_query() has made of it.
  void route_folded(Context& context, int layer, const Tensor& folded);
  std::span<const KeyValueSpan> gather(int layer) override;

  std::vector<ScoredDocument> routed(int count) const override;
  const std::vector<ScoredDocument>& selection(int routing_index) const override;
  std::span<const float> scores(int routing_index) const override;
  std::vector<float> late_scores(std::span<const ScoredDocument> documents) const override;
  std::vector<float> layer_scores(const ScoredDocument& document) const override;
  size_t slot_of(const ScoredDocument& document) const override;
  double route_milliseconds() const override { return route_ms_; }
  DeviceRouting::Statistics statistics() const override;

 protected:
  /// Called when a layer's documents are chosen, before their content is fetched: the last word about them.
  virtual void choose([[maybe_unused]] int routing_index, [[maybe_unused]] std::vector<ScoredDocument>& selection) {}

 private:
  size_t index_of(int layer) const;
  int64_t n_layers() const { return static_cast<int64_t>(scores_.size()); }
  std::vector<ScoredDocument> documents_of(const std::vector<BestScore>& best) const;
  void finish_route();
  void fetch(size_t i);
  void fetch_hot(size_t i);
  void upload_content(size_t i);

  const ModelConfig& config_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::shared_ptr<ContentCache> hot_;
  Router router_;
  MemoryQuery query_;
  mutable std::vector<std::vector<float>> scores_;  // per routing layer [slots]; with keys_ downloaded when asked for
  std::vector<std::vector<ScoredDocument>> selection_;  // per routing layer
  std::vector<std::vector<KeyValueSpan>> content_;      // per routing layer
  Buffer folded_memory_;
  // Per routing layer, of a late query that the CPU scores: the folded query F32 [n_routed, G·d] of its last route.
  std::vector<Tensor> q_;
  std::vector<Buffer> q_memory_;
  // On CUDA: q as the CPU's router takes it, the selected content on its way, and where it lies.
  Buffer host_q_;
  Staging staging_;
  std::vector<Buffer> content_memory_;                        // per routing layer
  std::vector<std::vector<std::shared_ptr<Buffer>>> in_use_;  // per routing layer: of hot_
  mutable std::unique_ptr<DeviceRouting> routing_;            // with keys on the GPU
  Context* routed_on_ = nullptr;
  int pending_ = -1;  // routing index of the layer whose choice is on its way
  double route_ms_ = 0;
};

}  // namespace msa
