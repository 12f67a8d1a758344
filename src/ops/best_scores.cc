#include "ops/best_scores.h"

#include "ops/check.h"
#include "ops/cuda_ops.h"

namespace msa {

std::vector<BestScore> best_mean_scores(Context& context, const Tensor& scores, int k) {
  MSA_CHECK(is_f32(scores) && scores.rank == 2 && k >= 1 && k <= kMostBestScores);
  MSA_CHECK(on_cuda(scores) && scores.device == context.device);
  if constexpr (kHasCuda) {
    if (scores.elements() > 0) return best_mean_scores_cuda(context, scores, k);
  }
  return {};
}

}  // namespace msa
