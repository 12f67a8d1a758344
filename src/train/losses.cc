#include "train/losses.h"

#include <algorithm>
#include <limits>

namespace msa::train {
namespace {

using torch::Tensor;

// Stands for minus infinity where an empty sum must keep a gradient of zero instead of NaN.
constexpr double kNever = -1e9;

Tensor mean_of_samples(const Tensor& per_sample, const Tensor& counted) {
  return (per_sample * counted).sum() / counted.sum().clamp_min(1);
}

/// [Q, D] true at the listed documents of each sample.
Tensor marked(const std::vector<int32_t>& documents, const std::vector<int64_t>& starts, int64_t n, int64_t width) {
  Tensor out = torch::zeros({n, width}, torch::kBool);
  auto cells = out.accessor<bool, 2>();
  for (int64_t i = 0; i < n && !starts.empty(); ++i) {
    for (int64_t j = starts[size_t(i)]; j < starts[size_t(i) + 1]; ++j) cells[i][documents[size_t(j)]] = true;
  }
  return out;
}

}  // namespace

RoutingTargets RoutingTargets::from(const Batch& batch, torch::Device device) {
  const int64_t n = batch.samples(), width = batch.documents();
  const Tensor positive = marked(batch.positives, batch.positive_starts, n, width);
  const Tensor ignored = marked(batch.ignored, batch.ignored_starts, n, width);
  RoutingTargets t;
  t.positive = positive.to(device, /*non_blocking=*/true);
  t.negative = (~positive & ~ignored).to(device, /*non_blocking=*/true);
  t.counted = positive.any(1, /*keepdim=*/true).to(torch::kFloat).to(device, /*non_blocking=*/true);
  if (batch.teacher_documents.empty()) return t;
  Tensor teacher = torch::full({n, width}, -std::numeric_limits<float>::infinity());
  auto cells = teacher.accessor<float, 2>();
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = batch.teacher_starts[size_t(i)]; j < batch.teacher_starts[size_t(i) + 1]; ++j) {
      cells[i][batch.teacher_documents[size_t(j)]] = batch.teacher_scores[size_t(j)];
    }
  }
  t.teacher = teacher.to(device, /*non_blocking=*/true);
  return t;
}

Tensor routing_loss(const std::vector<Tensor>& scores, const RoutingTargets& targets, RoutingLoss kind, double tau) {
  const Tensor against = kind == RoutingLoss::kEquation5 ? targets.negative : targets.negative | targets.positive;
  const Tensor positives = targets.positive.to(torch::kFloat);
  std::vector<Tensor> layers;
  for (const Tensor& s : scores) {
    const Tensor z = s / tau;
    const Tensor rest = torch::logsumexp(z.masked_fill(~against, kNever), {1}, /*keepdim=*/true);  // [Q, 1]
    const Tensor all = kind == RoutingLoss::kEquation5 ? torch::logaddexp(z, rest) : rest;
    const Tensor per_sample =
        ((all - z) * positives).sum(1, /*keepdim=*/true) / positives.sum(1, /*keepdim=*/true).clamp_min(1);
    layers.push_back(mean_of_samples(per_sample, targets.counted));
  }
  return torch::stack(layers).mean();
}

Tensor distillation_loss(const std::vector<Tensor>& scores, const RoutingTargets& targets, double tau,
                         double teacher_tau) {
  const Tensor known = targets.teacher.isfinite();
  const Tensor has_teacher = known.any(1, /*keepdim=*/true).to(torch::kFloat);
  const Tensor wanted = torch::softmax((targets.teacher / teacher_tau).masked_fill(~known, kNever), 1) * has_teacher;
  std::vector<Tensor> layers;
  for (const Tensor& s : scores) {
    const Tensor log_p = torch::log_softmax((s / tau).masked_fill(~known, kNever), 1);
    const Tensor per_sample = -(wanted * log_p.masked_fill(~known, 0)).sum(1, /*keepdim=*/true);
    layers.push_back(mean_of_samples(per_sample, has_teacher));
  }
  return torch::stack(layers).mean();
}

Tensor best_again(const Tensor& first, const Tensor& second, int64_t k) {
  const Tensor best = std::get<1>(first.topk(std::min(k, first.size(1)), 1));
  return torch::full_like(second, -std::numeric_limits<float>::infinity()).scatter_(1, best, second.gather(1, best));
}

Tensor recall_at(const Tensor& scores, const RoutingTargets& targets, int64_t k) {
  const Tensor best = std::get<1>(scores.topk(std::min(k, scores.size(1)), 1));
  const Tensor hit = targets.positive.gather(1, best).any(1, /*keepdim=*/true).to(torch::kFloat);
  return mean_of_samples(hit, targets.counted);
}

}  // namespace msa::train
