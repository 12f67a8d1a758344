// The best of many scores on a GPU, found there: only they come back.
#pragma once
#include <cstdint>
#include <vector>

#include "core/context.h"
#include "core/tensor.h"

namespace msa {

constexpr int kMostBestScores = 64;

struct BestScore {
  int32_t index;
  float score;
};

/// scores F32 [layers, n] on the context's GPU: the k (1 … kMostBestScores) best of their means over the layers,
/// highest first, ties by lower index; fewer where fewer exceed -inf.
std::vector<BestScore> best_mean_scores(Context& context, const Tensor& scores, int k);

/// The same in two steps, for work in between: what is found, in `memory` on the GPU, and then from the host's copy.
Tensor enqueue_best_mean_scores(Context& context, const Tensor& scores, int k, Buffer& memory);
std::vector<BestScore> read_best_scores(const Tensor& found);

}  // namespace msa
