#include "eval/score_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace msa::eval {
namespace {

TEST(ScoreTable, MeansAndColumns) {
  ScoreTable table({"a", "b"});
  table.add(std::vector{1.0, 10.0});
  table.add(std::vector{3.0, 30.0});
  EXPECT_EQ(table.rows(), 2u);
  EXPECT_EQ(table.column("b"), (std::vector<double>{10, 30}));
  const auto means = table.means({});
  EXPECT_EQ(means[0].value, 2);
  EXPECT_EQ(means[1].value, 20);
  EXPECT_EQ(means[0].low, 1);
  EXPECT_EQ(means[0].high, 3);
}

TEST(ScoreTable, IntervalsAreAsWideAsTheory) {
  ScoreTable table({"hit"});
  for (int i = 0; i < 1000; ++i) table.add(std::vector{i % 4 == 0 ? 1.0 : 0.0});
  const Estimate e = table.means({3, 4000}).front();
  const double half = 1.96 * std::sqrt(0.25 * 0.75 / 1000);
  EXPECT_NEAR(e.value, 0.25, 1e-12);
  EXPECT_NEAR(e.high - e.low, 2 * half, 0.15 * half);
}

TEST(ScoreTable, TheSameSeedDrawsTheSame) {
  ScoreTable table({"x"});
  for (int i = 0; i < 50; ++i) table.add(std::vector{std::sqrt(i)});
  EXPECT_EQ(to_json(table.means({5, 200})[0]), to_json(table.means({5, 200})[0]));
  EXPECT_NE(table.means({5, 200})[0].low, table.means({6, 200})[0].low);
}

TEST(ScoreTable, PairedRatioOfProportionalScoresIsSharp) {
  std::vector<double> base, half;
  for (int i = 1; i <= 100; ++i) {
    base.push_back(i);
    half.push_back(0.5 * i);
  }
  const Estimate e = ratio_of_means(half, base, {});
  EXPECT_NEAR(e.value, 0.5, 1e-12);
  EXPECT_NEAR(e.low, 0.5, 1e-12);
  EXPECT_NEAR(e.high, 0.5, 1e-12);
}

TEST(DrawIndices, DistinctAscendingAndCovering) {
  std::set<size_t> seen;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto drawn = draw_indices(10, 3, seed);
    ASSERT_EQ(drawn.size(), 3u);
    EXPECT_TRUE(drawn[0] < drawn[1] && drawn[1] < drawn[2] && drawn[2] < 10);
    seen.insert(drawn.begin(), drawn.end());
  }
  EXPECT_EQ(seen.size(), 10u);
  EXPECT_EQ(draw_indices(4, -1, 0), (std::vector<size_t>{0, 1, 2, 3}));
  EXPECT_EQ(draw_indices(4, 9, 0).size(), 4u);
}

}  // namespace
}  // namespace msa::eval
