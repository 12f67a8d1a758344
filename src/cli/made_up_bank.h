// A made-up bank of any size for measurements: random keys on GPUs, random content in page-locked host memory, whole or
// in parts on several ranks. It is routed as a bank is; every rank makes the part that it would make in any other
// split.
#pragma once
#include <memory>
#include <vector>

#include "core/staging.h"
#include "engine/device_routing.h"
#include "engine/shard_driver.h"
#include "model/config.h"
#include "model/memory.h"

namespace msa::cli {

struct MadeUpBank {
  int64_t documents = 0;
  int chunks = 0;  // of each document
  int top_k = 0;
  /// Documents of one of `ranks` parts, all of about the same size.
  SlotRange part(int rank, int ranks) const { return {documents * rank / ranks, documents * (rank + 1) / ranks}; }
};

/// The documents of one range.
class MadeUpPart {
 public:
  MadeUpPart(Context& context, const ModelConfig& config, const MadeUpBank& bank, const SlotRange& range,
             const DeviceOptions& options);
  ~MadeUpPart();

  /// q F32 [n, G·d] folded.
  void route(Context& context, int routing_index, const Tensor& q) { routing_->route(context, routing_index, q); }
  /// Of the layer routed last, named as in the whole bank.
  std::vector<ShardCandidate> chosen();
  bool holds(int64_t document) const { return document >= range_.begin && document < range_.end; }
  /// Bytes as the content of documents [documents · chunks, 2 (K|V), G·d].
  Tensor as_content(const Tensor& bytes) const {
    return Tensor(bytes.data, DType::kBF16, {bytes.bytes() / (4 * width_), 2, width_}, bytes.device);
  }
  /// Their content, one after another, → to as above, on the GPU or in host memory.
  void content(Context& context, std::span<const int64_t> documents, const Tensor& to) const;
  int64_t document_bytes() const { return 4 * int64_t{bank_.chunks} * width_; }

  /// Read in every scan: what candidates cost comes on top.
  int64_t key_bytes() const;
  const DeviceKeys& keys() const { return *keys_; }
  DeviceRouting& routing() { return *routing_; }

 private:
  MadeUpBank bank_;
  SlotRange range_;
  int width_, layers_;
  int64_t kept_ = 0;  // documents whose content is there; the others share it
  Staging content_memory_;
  Tensor content_;  // BF16 [kept · chunks, 2, G·d]
  std::shared_ptr<const DeviceKeys> keys_;
  std::unique_ptr<DeviceRouting> routing_;
};

/// What the model sees on rank 0. `driver` is null where the bank is whole.
class MadeUpMemory final : public Memory {
 public:
  MadeUpMemory(const ModelConfig& config, const MadeUpBank& bank, MadeUpPart& own, ShardDriver* driver)
      : config_(config), bank_(bank), own_(own), driver_(driver), layers_(config.memory.routing_layers.size()) {}

  void route(Context& context, int layer, const Tensor& q) override;
  std::span<const KeyValueSpan> gather(int layer) override;

  /// Waits for the choice of a layer that was routed, best first, without its content.
  const std::vector<ShardCandidate>& choose(int layer);

 private:
  struct Delivery {
    Message message;
    Buffer on_device;
  };
  struct Layer {
    bool is_routed = false, is_chosen = false;
    uint64_t ticket = 0;
    std::vector<ShardCandidate> selection;
    Buffer folded_memory, own_memory;
    std::vector<Delivery> deliveries;  // by rank
    std::vector<KeyValueSpan> spans;
  };

  Layer& at(int layer);
  void fetch(int layer, Layer& one);
  void add_span(Layer& one, const Tensor& content) const;

  const ModelConfig& config_;
  MadeUpBank bank_;
  MadeUpPart& own_;
  ShardDriver* driver_;
  std::vector<Layer> layers_;
  Context* context_ = nullptr;
  Buffer host_q_;
};

/// What the other ranks do: answers rank 0 until it ends the run.
void serve_made_up_part(Context& context, MadeUpPart& part, Exchange& exchange);

}  // namespace msa::cli
