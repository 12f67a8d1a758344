// What every rank but 0 does in a run over several: it holds a part of the bank and does what rank 0 asks for.
#pragma once
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>

#include "engine/bank_memory.h"
#include "engine/device_bank.h"
#include "engine/shard_messages.h"

namespace msa {

class ShardServer {
 public:
  /// `bank`: the bank's folder as this rank sees it. Parts lie where the context computes.
  ShardServer(Context& context, Exchange& exchange, std::filesystem::path bank, const DeviceOptions& device = {});
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
  Part& part(uint32_t query);
  /// Contents one after another → the reply's body.
  void put_content(std::span<const Tensor> contents, Message& reply);

  Context& context_;
  Exchange& exchange_;
  ShardOpener opener_;
  DeviceBank device_;
  ModelConfig config_;  // what routing needs of it
  SlotRange range_;
  std::shared_ptr<const Snapshot> held_;
  std::map<uint32_t, std::unique_ptr<Part>> parts_;  // by query
};

}  // namespace msa
