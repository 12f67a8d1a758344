// The memory that the model's forward pass sees: a bank's snapshot behind the router.
#pragma once
#include <memory>
#include <vector>

#include "bank/snapshot.h"
#include "model/config.h"
#include "model/memory.h"
#include "router/router.h"

namespace msa {

/// One query's view of one snapshot. Keeps, until the next hop, each layer's scores and selection.
class BankMemory : public Memory {
 public:
  /// `allowed` [documents of all segments] (empty = all): the others are never scored, selected or routed.
  BankMemory(const ModelConfig& config, std::shared_ptr<const Snapshot> snapshot, int top_k,
             std::vector<uint8_t> allowed = {});

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

  const ModelConfig& config_;
  std::shared_ptr<const Snapshot> snapshot_;
  Router router_;
  int top_k_;
  std::vector<uint8_t> allowed_;                        // [slots], or empty
  std::vector<std::vector<float>> scores_;              // per routing layer [slots]
  std::vector<std::vector<ScoredDocument>> selection_;  // per routing layer
  std::vector<std::vector<KeyValueSpan>> content_;      // per routing layer, one span a selected document
  double route_ms_ = 0;
};

}  // namespace msa
