// What every rank but 0 does in a run over several: it holds a part of the bank and does what rank 0 asks for.
#pragma once
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>

#include "engine/bank_memory.h"
#include "engine/device_bank.h"
#include "engine/encoder.h"
#include "engine/shard_messages.h"

namespace msa {

class ShardServer {
 public:
  /// Parts lie where the context computes. `model` (may be null): for encoding alone. `bank`: the bank's folder as this
  /// rank sees it; empty: where rank 0 has it.
  ShardServer(Context& context, Exchange& exchange, const DeviceOptions& device = {}, const Model* model = nullptr,
              std::filesystem::path bank = {});
  ~ShardServer();

  /// Answers until rank 0 ends the run. A request that fails is answered with its error, and the service goes on.
  /// Throws Error when nothing comes from rank 0 for `patience`, or rank 0 is gone.
  void serve(std::chrono::milliseconds patience = std::chrono::minutes(30));

 private:
  class Part;

  /// False: the run is over.
  bool handle(const Message& request);
  void answer(const RequestHead& head, HeadReader& in, const Message& request, Message& reply);
  void hold(HeadReader& in);
  void begin(uint32_t query, HeadReader& in);
  void route(uint32_t query, HeadReader& in, const Message& request, Message& reply);
  void content(uint32_t query, HeadReader& in, Message& reply);
  void routed(uint32_t query, HeadReader& in, Message& reply);
  void scores(uint32_t query, HeadReader& in, Message& reply);
  void late_scores(uint32_t query, HeadReader& in, Message& reply);
  void ping(HeadReader& in, Message& reply);
  void encode(const RequestHead& head, HeadReader& in, Message& reply);
  Part& part(uint32_t query);
  /// Contents one after another → the reply's body.
  void put_content(std::span<const Tensor> contents, Message& reply);

  Context& context_;
  Exchange& exchange_;
  std::filesystem::path bank_;
  ShardOpener opener_;
  const Model* model_;
  std::unique_ptr<Encoder> encoder_;
  DeviceBank device_;
  ModelConfig config_;  // what routing needs of it
  SlotRange range_;
  std::shared_ptr<const Snapshot> held_;
  std::map<uint32_t, std::unique_ptr<Part>> parts_;  // by query
};

}  // namespace msa
