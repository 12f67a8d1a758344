// The memory that the model's forward pass sees where the bank lies on several ranks. This one scores its own part
// while the others score theirs; the selection is that of one process, to the last bit.
#pragma once
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/bank_memory.h"
#include "engine/device_bank.h"
#include "engine/shard_driver.h"

namespace msa {

class ShardedMemory final : public RoutedMemory {
 public:
  ShardedMemory(Context& context, const ModelConfig& config, std::shared_ptr<const Snapshot> snapshot,
                const MemoryQuery& query, DeviceBank& device, ShardDriver& driver);
  ~ShardedMemory() override;
  ShardedMemory(const ShardedMemory&) = delete;
  ShardedMemory& operator=(const ShardedMemory&) = delete;

  /// One exchange: the query goes out folded, the own part is scored, the others' candidates come. Large content is
  /// asked for once the candidates are merged, and comes while the caller goes on to gather().
  void route(Context& context, int layer, const Tensor& q) override;
  std::span<const KeyValueSpan> gather(int layer) override;

  std::vector<ScoredDocument> routed(int count) const override;
  const std::vector<ScoredDocument>& selection(int routing_index) const override;
  std::span<const float> scores(int routing_index) const override;
  std::vector<float> late_scores(std::span<const ScoredDocument> documents) const override;
  std::vector<float> layer_scores(const ScoredDocument& document) const override;
  size_t slot_of(const ScoredDocument& document) const override;
  double route_milliseconds() const override { return route_ms_; }
  DeviceRouting::Statistics statistics() const override;  // of rank 0's part

  MissingShare missing() const override { return ShardDriver::missing(*holding_); }

 private:
  class Own;
  /// A rank's content for one layer, on its way or here.
  struct Delivery {
    int rank = 0;
    uint64_t ticket = 0;         // 0: it is here
    std::vector<int64_t> slots;  // of the documents in the body, in its order
    Message message;
    Buffer on_device;  // the body, where the model runs on a GPU and bodies come to the host
  };
  struct Layer {
    uint64_t ticket = 0;  // of the query; 0: its candidates are here
    std::vector<int> asked;
    std::vector<ScoredDocument> selection;
    std::vector<Delivery> deliveries;
    std::vector<KeyValueSpan> spans;  // by selection
    bool is_assembled = false;
    Buffer dense;            // the content of a selection of too many spans
    std::vector<float> all;  // scores [slots], where asked for
  };

  size_t index_of(int layer) const;
  ScoredDocument document_of(int64_t slot, float score) const;
  int64_t chunks_of(const ScoredDocument& document) const;
  bool is_own(int64_t slot) const;
  std::vector<int> asked_now() const;  // ranks that know the query and are not lost
  /// Called by the own part when its documents are chosen: merges, asks for content, leaves the own ones in `own`.
  void merge(int routing_index, std::vector<ScoredDocument>& own);
  void ask_for_content(int routing_index);
  void receive_content(Layer& layer);
  std::unordered_map<int64_t, Tensor> delivered(Layer& layer);
  void assemble(size_t routing_index);
  void join(Layer& layer);

  Context& context_;
  const ModelConfig& config_;
  ShardDriver& driver_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::shared_ptr<const Holding> holding_;
  Router slots_, own_slots_;  // of the whole snapshot and of the own part: slots to documents
  int top_k_;
  uint32_t query_;
  std::vector<int> ranks_;  // that know the query
  std::unique_ptr<Own> own_;
  std::vector<Layer> layers_;  // per routing layer
  Buffer folded_q_, host_q_;
  mutable std::unordered_map<int64_t, std::vector<float>> layer_scores_;  // slot → scores, of the last routed()
  mutable std::vector<std::vector<float>> scores_;                        // per routing layer [slots], where asked for
  double route_ms_ = 0;
};

}  // namespace msa
