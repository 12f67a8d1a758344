// The memory that the model's forward pass sees: a bank's snapshot behind the router.
#pragma once
#include <memory>
#include <vector>

#include "bank/snapshot.h"
#include "model/config.h"
#include "model/memory.h"
#include "router/device_keys.h"
#include "router/router.h"

namespace msa {

/// One query's view of one snapshot. Keeps, until the next hop, each layer's scores and selection.
class BankMemory : public Memory {
 public:
  /// `keys` (may be null): the snapshot's on the GPU that the model runs on; without them the CPU scans the snapshot.
  BankMemory(const ModelConfig& config, std::shared_ptr<const Snapshot> snapshot, int top_k,
             std::shared_ptr<const DeviceKeys> keys = nullptr);

  void route(Context& context, int layer, const Tensor& q) override;
  std::span<const KeyValueSpan> gather(int layer) override;

  /// Documents by the mean of their scores over the routing layers, highest first, ties by lower id.
  std::vector<ScoredDocument> routed(int count) const;
  /// One layer's selection of the last route, and the score of any document of it.
  const std::vector<ScoredDocument>& selection(int routing_index) const;
  std::span<const float> scores(int routing_index) const;  // [slots]
  size_t slot_of(const ScoredDocument& document) const;
  double route_milliseconds() const { return route_ms_; }

 private:
  size_t index_of(int layer) const;
  void upload_content(Context& context, size_t routing_index);

  const ModelConfig& config_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::shared_ptr<const DeviceKeys> keys_;
  Similarity similarity_;
  Router router_;
  int top_k_;
  std::vector<std::vector<float>> scores_;              // per routing layer [slots]
  std::vector<std::vector<ScoredDocument>> selection_;  // per routing layer
  std::vector<std::vector<KeyValueSpan>> content_;      // per routing layer: a span a document, on CUDA one for all
  std::vector<Buffer> content_memory_;                  // per routing layer: selected content on the GPU
  Buffer host_content_, host_q_;
  double route_ms_ = 0;
};

}  // namespace msa
