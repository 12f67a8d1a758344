#include "ops/best_scores.h"

#include <cstring>

#include "core/copy.h"
#include "ops/check.h"
#include "ops/cuda_ops.h"
#include "ops/routing_scan.h"

namespace msa {

std::vector<BestScore> best_mean_scores(Context& context, const Tensor& scores, int k) {
  if (scores.elements() == 0) return {};
  Buffer memory;
  const Tensor found = enqueue_best_mean_scores(context, scores, k, context.scratch[2]);
  return read_best_scores(to_host(context, found, memory));
}

Tensor enqueue_best_mean_scores(Context& context, const Tensor& scores, int k, [[maybe_unused]] Buffer& memory) {
  MSA_CHECK(is_f32(scores) && scores.rank == 2 && scores.elements() > 0 && k >= 1 && k <= kMostBestScores);
  MSA_CHECK(on_cuda(scores) && scores.device == context.device);
  if constexpr (kHasCuda) return best_mean_scores_cuda(context, scores, k, memory);
  return {};
}

std::vector<BestScore> read_best_scores(const Tensor& found) {
  MSA_CHECK(!on_cuda(found) && found.bytes() >= int64_t{sizeof(RoutingSelection)});
  RoutingSelection selection;
  std::memcpy(&selection, found.data, sizeof(selection));
  std::vector<BestScore> out;
  for (int i = 0; i < selection.n; ++i) out.push_back({selection.documents[i], selection.scores[i]});
  return out;
}

}  // namespace msa
