#include "engine/session.h"

#include <algorithm>

#include "core/copy.h"
#include "core/cuda.h"
#include "core/error.h"
#include "engine/sampler.h"
#include "ops/argmax.h"

namespace msa {
namespace {
constexpr int kInitialCapacity = 512;
// The first of a run of tokens brings every buffer to its size; a graph pays when some more follow.
constexpr int kTokensBeforeCapture = 3;
}  // namespace

Session::Session(Context& context, const Transformer& transformer, const KvCache& head, Memory* memory,
                 int first_position)
    : transformer_(transformer),
      head_(head),
      memory_(memory),
      first_position_(first_position),
      cache_(transformer.config(), head.length() + kInitialCapacity, transformer.activation_dtype(),
             transformer.device()) {
  cache_.assign(context, head_);
}

int Session::room() const {
  const int used = cache_.length() - head_.length();
  return transformer_.config().max_positions - first_position_ - used;
}

void Session::restart() { rewind(head_.length()); }

void Session::rewind(int length) {
  MSA_CHECK(length >= head_.length() && length <= cache_.length());
  cache_.truncate(length);
  graph_.reset();
  decoded_ = 0;
}

void Session::grow(Context& context, int tokens) {
  const int needed = cache_.length() + tokens;
  if (needed <= cache_.capacity()) return;
  KvCache larger(transformer_.config(), std::max(needed, 2 * cache_.capacity()), transformer_.activation_dtype(),
                 transformer_.device());
  larger.assign(context, cache_);
  synchronize(context);
  cache_ = std::move(larger);
  graph_.reset();
  decoded_ = 0;
}

Tensor Session::run(Context& context, std::span<const int32_t> tokens, std::span<const uint8_t> routed) {
  grow(context, static_cast<int>(tokens.size()));
  graph_.reset();
  decoded_ = 0;
  const int first = first_position_ + cache_.length() - head_.length();
  std::vector<int32_t> positions(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) positions[i] = first + static_cast<int32_t>(i);
  QueryStage stage(transformer_.config(), cache_, memory_, routed);
  return transformer_.forward(context, workspace_, tokens, positions, stage);
}

std::span<const float> Session::feed(Context& context, std::span<const int32_t> tokens,
                                     std::span<const uint8_t> routed) {
  const bool routes = std::any_of(routed.begin(), routed.end(), [](uint8_t r) { return r != 0; });
  const bool one = on_cuda(context.device) && tokens.size() == 1 && !routes;
  const Tensor out = one ? decode(context, tokens[0]) : last_logits(context, run(context, tokens, routed));
  const Tensor host = to_host(context, out, host_logits_);
  return {host.as<float>(), static_cast<size_t>(host.elements())};
}

Tensor Session::last_logits(Context& context, const Tensor& x) {
  const Tensor out = logits_.tensor(DType::kF32, {1, transformer_.config().vocab}, context.device);
  transformer_.logits(context, workspace_, x.slice_rows(x.rows() - 1, x.rows()), out);
  return out;
}

/// One token on CUDA. The cache's length is read on the device, so the graph of one step serves the next ones.
Tensor Session::decode(Context& context, int32_t token) {
  grow(context, 1);
  const int32_t position = first_position_ + cache_.length() - head_.length();
  QueryStage stage(transformer_.config(), cache_, memory_, {});
  const ForwardInputs inputs = transformer_.prepare(context, workspace_, {&token, 1}, {&position, 1}, stage);
  const Tensor out = logits_.tensor(DType::kF32, {1, transformer_.config().vocab}, context.device);
  const auto step = [&] { last_logits(context, transformer_.layers(context, workspace_, inputs, stage)); };
  if (++decoded_ <= kTokensBeforeCapture || !is_repeatable_) {
    step();
    is_repeatable_ = stage.is_repeatable();
    return out;
  }
  if constexpr (kHasCuda) {
    const int length = cache_.length();
    if (graph_ == nullptr) {
      graph_ = cuda_capture(*context.cuda, step);
      cache_.truncate(length);  // capturing ran nothing
    }
    cuda_launch(*context.cuda, *graph_);
    cache_.advance(1);
  }
  return out;
}

int32_t Session::feed_greedily(Context& context, int32_t token) {
  if (!on_cuda(context.device)) return argmax(feed(context, {&token, 1}));
  const Tensor logits = decode(context, token);
  const Tensor best = best_.tensor(DType::kI32, {1}, context.device);
  argmax_on_device(context, logits.reshape({logits.dim(1)}), best);
  int32_t next = 0;
  copy(context, best, Tensor(&next, DType::kI32, {1}));
  return next;
}

Tensor Session::feed_all(Context& context, std::span<const int32_t> tokens, std::span<const uint8_t> routed) {
  const Tensor x = run(context, tokens, routed);
  const Tensor out = logits_.tensor(DType::kF32, {x.rows(), transformer_.config().vocab}, context.device);
  transformer_.logits(context, workspace_, x, out);
  return to_host(context, out, host_logits_);
}

}  // namespace msa
