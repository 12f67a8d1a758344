// The best of many scores, chosen on a GPU, against sorting them.
#include "ops/best_scores.h"

#include <cmath>
#include <numeric>

#include "../device_testing.h"
#include "op_test.h"

namespace msa {
namespace {

class BestScoresTest : public DeviceTest {};

/// Few different values, so that ties decide; some documents of no layer, some of one alone.
std::vector<float> some_scores(int64_t layers, int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> out(static_cast<size_t>(layers * n));
  for (float& x : out) x = static_cast<float>(static_cast<int>(random() % 64) - 32) / 8;
  for (int64_t i = 0; i < n; i += 3) {
    for (int64_t layer = 0; layer < layers; ++layer) {
      if (layer == 0 || i % 2 == 0) out[static_cast<size_t>(layer * n + i)] = -INFINITY;
    }
  }
  return out;
}

TEST_P(BestScoresTest, AreTheFirstOfASort) {
  Context& gpu = cuda_context();
  constexpr uint32_t kSeed = 17;
  for (const int64_t n : {1, 2, 100, 5000, 300001}) {
    for (const int64_t layers : {1, 15}) {
      std::vector<float> scores = some_scores(layers, n, kSeed);
      std::vector<float> mean(static_cast<size_t>(n), 0.0f);
      for (int64_t i = 0; i < layers * n; ++i) mean[static_cast<size_t>(i % n)] += scores[static_cast<size_t>(i)];
      for (float& m : mean) m /= static_cast<float>(layers);
      std::vector<int32_t> order(static_cast<size_t>(n));
      std::iota(order.begin(), order.end(), 0);
      const auto score = [&](int32_t i) { return mean[static_cast<size_t>(i)]; };
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return score(a) > score(b); });
      while (!order.empty() && std::isinf(score(order.back()))) order.pop_back();
      Buffer memory;
      const Tensor on_gpu = to_device(gpu, Tensor(scores.data(), DType::kF32, {layers, n}), memory);
      for (const int k : {1, 16, kMostBestScores}) {
        SCOPED_TRACE(std::to_string(n) + " scores of " + std::to_string(layers) + " layers, k " + std::to_string(k) +
                     ", seed " + std::to_string(kSeed));
        const std::vector<BestScore> best = best_mean_scores(gpu, on_gpu, k);
        ASSERT_EQ(best.size(), std::min(order.size(), static_cast<size_t>(k)));
        for (size_t i = 0; i < best.size(); ++i) {
          EXPECT_EQ(best[i].index, order[i]) << i;
          EXPECT_EQ(best[i].score, score(order[i])) << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(On, BestScoresTest, ::testing::Values(DeviceType::kCuda), device_test_name);

}  // namespace
}  // namespace msa
