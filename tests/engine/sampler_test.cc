#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/error.h"

namespace msa {
namespace {

TEST(Sampler, GreedyTakesTheLowestOfEqualTokens) {
  Sampler sampler({});
  EXPECT_EQ(sampler.pick(std::vector<float>{1, 3, 3, 2}), 1);
}

TEST(Sampler, TheSameSeedGivesTheSameTokens) {
  const std::vector<float> logits{0, 1, 2, 3, 2, 1};
  Sampler a({1.0f, 1.0f, 42}), b({1.0f, 1.0f, 42}), c({1.0f, 1.0f, 43});
  int differences = 0;
  for (int i = 0; i < 200; ++i) {
    const int32_t token = a.pick(logits);
    EXPECT_EQ(token, b.pick(logits));
    differences += token != c.pick(logits);
  }
  EXPECT_GT(differences, 0);
}

TEST(Sampler, FrequenciesFollowTheProbabilities) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  Sampler sampler({1.0f, 1.0f, 7});
  std::vector<int> count(3);
  for (int i = 0; i < 20000; ++i) ++count[static_cast<size_t>(sampler.pick(logits))];
  EXPECT_NEAR(count[0] / 20000.0, 0.5, 0.02);
  EXPECT_NEAR(count[1] / 20000.0, 0.3, 0.02);
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  Sampler sampler({1.0f, 0.6f, 7});
  for (int i = 0; i < 2000; ++i) EXPECT_NE(sampler.pick(logits), 2);
  Sampler narrow({5.0f, 1e-6f, 7});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(narrow.pick(logits), 0);
}

TEST(Sampler, RefusesNonsense) {
  EXPECT_THROW(Sampler({-1.0f, 1.0f, 0}), Error);
  EXPECT_THROW(Sampler({NAN, 1.0f, 0}), Error);
  EXPECT_THROW(Sampler({1.0f, 0.0f, 0}), Error);
  EXPECT_THROW(Sampler({1.0f, 1.5f, 0}), Error);
}

}  // namespace
}  // namespace msa
