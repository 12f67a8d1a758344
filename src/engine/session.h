// One sequence in the making: cache, memory, position. A hop starts it anew; decoding feeds it token by token.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "engine/model.h"
#include "model/memory.h"

namespace msa {

struct CudaGraph;

class Session {
 public:
  /// `memory` may be null. `first_position` is that of the first token after the template head
  /// (paper: len(template head) + top_k, so that it does not depend on how many documents were found).
  Session(Context& context, const Transformer& transformer, const KvCache& head, Memory* memory, int first_position);

  /// Tokens that still fit into the model's context.
  int room() const;
  int length() const { return cache_.length(); }

  /// Runs the tokens behind all earlier ones and returns the logits [vocab] after the last; they live until the next
  /// call. `routed` marks tokens that route (all zero or empty: the selection stays).
  std::span<const float> feed(Context& context, std::span<const int32_t> tokens, std::span<const uint8_t> routed = {});
  /// Feeds one token and returns the most likely next one: on CUDA the logits stay there.
  int32_t feed_greedily(Context& context, int32_t token);
  /// The same with the logits of every token: F32 [T, vocab].
  Tensor feed_all(Context& context, std::span<const int32_t> tokens, std::span<const uint8_t> routed = {});
  /// Back to the template head alone.
  void restart();
  /// Back to the first `length` tokens, the template head included. The memory's selection stays.
  void rewind(int length);

 private:
  Tensor run(Context& context, std::span<const int32_t> tokens, std::span<const uint8_t> routed);
  Tensor decode(Context& context, int32_t token);
  Tensor last_logits(Context& context, const Tensor& x);
  void grow(Context& context, int tokens);

  const Transformer& transformer_;
  const KvCache& head_;
  Memory* memory_;
  int first_position_;
  KvCache cache_;
  Workspace workspace_;
  Buffer logits_, host_logits_, best_;
  // Decoding on CUDA: the kernels of one token, launched at once. Valid while no buffer moves and the selection stays.
  std::shared_ptr<CudaGraph> graph_;
  bool is_repeatable_ = false;
  int decoded_ = 0;  // tokens one by one since the last pass of another kind
};

}  // namespace msa
