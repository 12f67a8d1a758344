// Routing of many questions: packed into common passes through the layers, nothing generated.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "engine/device_bank.h"
#include "engine/model.h"
#include "engine/routed_memory.h"

namespace msa {
class ShardDriver;
}  // namespace msa

namespace msa::eval {

struct RoutingOptions {
  int top_k = 0;  // documents attended in each routing layer; 0: the model's own number
  /// false: a question attends to nothing in the memory, so its score with a document depends on these two alone, as
  /// with an embedding model. true: as in `msa ask`, where deeper layers have seen what shallower ones selected.
  bool attend_memory = true;
  int pack_tokens = 1024;  // of the questions that share a pass, about
  DeviceOptions device = {};
  ShardDriver* ranks = nullptr;  // where the bank lies on several
};

class QuestionRouter {
 public:
  QuestionRouter(const Model& model, std::shared_ptr<const Snapshot> snapshot, const RoutingOptions& options);

  /// Called once a question, in order, with the scores of its first hop in every routing layer.
  using Sink = std::function<void(size_t question, const RoutedMemory& memory)>;

  /// Throws Error for a question that is empty or does not fit the model's context.
  void route(Context& context, std::span<const std::string_view> questions, const Sink& sink);

  int64_t tokens() const { return tokens_; }  // run so far

 private:
  void route_pack(Context& context, std::span<const Prompt> prompts, size_t first, const Sink& sink);

  const Model& model_;
  std::shared_ptr<const Snapshot> snapshot_;
  RoutingOptions options_;
  DeviceBank device_;
  Workspace workspace_;
  int64_t tokens_ = 0;
};

}  // namespace msa::eval
