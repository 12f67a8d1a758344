#include "engine/device_routing.h"

#include <algorithm>
#include <limits>

#include "core/copy.h"
#include "core/cuda.h"
#include "ops/routing_scan.h"

namespace msa {

Tensor DeviceRouting::row(const Tensor& all, int layer) const {
  return all.slice_rows(layer, layer + 1).reshape({all.dim(1)});
}

void DeviceRouting::begin(Context& context) {
  if (!scores_.empty()) return;
  const int64_t slots = keys_->n_slots(), layers = query_.n_layers;
  scores_ = scores_memory_.tensor(DType::kF32, {layers, slots}, context.device);
  if (!query_.allowed.empty()) {
    const Tensor allowed = Tensor::of_const(query_.allowed.data(), DType::kI8, {slots});
    allowed_ = to_device(context, allowed, allowed_memory_);
  }
  if (keeps_queries()) {
    q_memory_.resize(static_cast<size_t>(layers));
    q_.resize(static_cast<size_t>(layers));
  }
  if (!is_bounded()) return;
  const Tensor bounds = bounds_memory_.tensor(DType::kF32, {2 * layers, slots}, context.device);
  lower_ = bounds.slice_rows(0, layers);
  upper_ = bounds.slice_rows(layers, 2 * layers);
  candidates_ = candidates_memory_.tensor(DType::kI32, {layers}, context.device);
  const std::vector<int32_t> none(static_cast<size_t>(layers), 0);
  copy(context, Tensor::of_const(none.data(), DType::kI32, {layers}), candidates_);
}

void DeviceRouting::route(Context& context, int layer, const Tensor& q) {
  context_ = &context;
  begin(context);
  settled_ = 0;
  const Tensor to = row(scores_, layer);
  if (keeps_queries()) {
    Tensor& kept = q_[static_cast<size_t>(layer)];
    kept = q_memory_[static_cast<size_t>(layer)].tensor(q.dtype, {q.rows(), q.row_elements()}, context.device);
    copy(context, q, kept);
  }
  if (is_bounded()) {
    keys_->route(context, layer, q, scope(), query_.top_k, to,
                 {row(lower_, layer), row(upper_, layer), candidates_.slice_rows(layer, layer + 1)});
  } else {
    keys_->score(context, layer, q, scope(), to);
  }
  chosen_ = {};
  if (query_.top_k < 1 || query_.top_k > kMostBestScores || to.elements() == 0) return;
  chosen_ = enqueue_best_mean_scores(context, scores_.slice_rows(layer, layer + 1), query_.top_k, chosen_memory_);
  chosen_at_ = mark(context);
}

std::vector<BestScore> DeviceRouting::chosen() {
  if (chosen_.empty()) return {};
  return read_best_scores(to_host_after(*context_, chosen_at_.get(), chosen_, chosen_staging_));
}

bool DeviceRouting::is_settled(int64_t slot) const {
  return !is_bounded() || (settled_ > 0 && is_settled_[static_cast<size_t>(slot)] != 0);
}

/// Right scores, in every layer, of all documents that may be among the `count` best by mean: those whose upper bounds'
/// mean reaches the count-th best mean of lower bounds. A computed mean never falls where a score of it rises, so the
/// computed means are ordered as their bounds are.
void DeviceRouting::settle(int count) {
  if (!is_bounded() || settled_ >= count) return;
  count = std::max(count, std::min(2 * query_.top_k, kMostBestScores));  // who asks again asks for a few more
  Context& context = *context_;
  const int64_t slots = scores_.dim(1);
  const std::vector<BestScore> lower = best_mean_scores(context, lower_, count);
  const bool full = static_cast<int>(lower.size()) == count;
  const float threshold = full ? lower.back().score : -std::numeric_limits<float>::infinity();
  Buffer memory;
  const Tensor flags = memory.tensor(DType::kI8, {slots}, context.device);
  if constexpr (kHasCuda) {
    mark_means(upper_.as<float>(), query_.n_layers, slots, threshold, flags.as<uint8_t>(),
               cuda_stream_handle(*context.cuda));
  }
  is_settled_.resize(static_cast<size_t>(slots));
  copy(context, flags, Tensor(is_settled_.data(), DType::kI8, {slots}));
  for (int layer = 0; layer < query_.n_layers; ++layer) {
    DeviceKeys::Scope chosen = scope();
    chosen.allowed = flags;
    chosen.host_allowed = is_settled_;
    keys_->score(context, layer, q_[static_cast<size_t>(layer)], chosen, row(scores_, layer));
  }
  settled_ = count;
}

std::vector<BestScore> DeviceRouting::best(int count) {
  if (scores_.empty()) return {};
  settle(count);
  return best_mean_scores(*context_, scores_, count);
}

void DeviceRouting::scores(int layer, std::vector<float>& out) {
  const int64_t slots = scores_.dim(1);
  Tensor from = row(scores_, layer);
  Buffer memory;
  if (is_bounded()) {
    from = memory.tensor(DType::kF32, {slots}, context_->device);
    keys_->score(*context_, layer, q_[static_cast<size_t>(layer)], scope(), from);
  }
  out.resize(static_cast<size_t>(slots));
  copy(*context_, from, Tensor(out.data(), DType::kF32, {slots}));
}

std::vector<float> DeviceRouting::layer_scores(int64_t slot) {
  std::vector<float> out(static_cast<size_t>(query_.n_layers));
  if (is_settled(slot)) {
    copy(*context_, scores_.slice_columns(slot, slot + 1), Tensor(out.data(), DType::kF32, {query_.n_layers, 1}));
    return out;
  }
  std::vector<float> all;
  for (int layer = 0; layer < query_.n_layers; ++layer) {
    scores(layer, all);
    out[static_cast<size_t>(layer)] = all[static_cast<size_t>(slot)];
  }
  return out;
}

DeviceRouting::Statistics DeviceRouting::statistics() {
  Statistics s;
  if (!has_routed() || !is_bounded()) return s;
  std::vector<int32_t> counts(static_cast<size_t>(query_.n_layers));
  copy(*context_, candidates_, Tensor(counts.data(), DType::kI32, {query_.n_layers}));
  s.bounded = true;
  s.chunks = keys_->sizes().rows * query_.n_layers;
  for (const int32_t n : counts) {
    s.candidates += n;
    s.fell_back += n > kRoutingCandidates ? 1 : 0;
  }
  return s;
}

}  // namespace msa
