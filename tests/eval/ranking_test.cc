#include "eval/ranking.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace msa::eval {
namespace {

BeirQuestion question_with(std::vector<int32_t> gold, std::vector<int32_t> grades) {
  BeirQuestion q;
  q.gold = std::move(gold);
  q.grades = std::move(grades);
  return q;
}

TEST(Ranking, BestFirstTiesByLowerIndexLeftOutNotRanked) {
  const float dead = -std::numeric_limits<float>::infinity();
  const std::vector<float> scores{0.5f, 0.9f, dead, 0.9f, 0.1f, 0.7f};
  const Ranking ranking = rank_documents(scores, std::vector<int32_t>{5}, 3);
  ASSERT_EQ(ranking.size(), 3u);
  EXPECT_EQ(ranking[0].document, 1);
  EXPECT_EQ(ranking[1].document, 3);
  EXPECT_EQ(ranking[2].document, 0);
  EXPECT_EQ(rank_documents(scores, {}, 100).size(), 5u);
}

TEST(Ranking, ScoresByHand) {
  const BeirQuestion question = question_with({7, 3}, {1, 2});
  const Ranking ranking{{1, 0.9f}, {3, 0.8f}, {4, 0.7f}, {5, 0.6f}, {6, 0.5f}, {7, 0.4f}};
  const std::vector<double> scores = score_ranking(ranking, question);
  const double ideal = 2 / std::log2(2.0) + 1 / std::log2(3.0);
  const double gain = 2 / std::log2(3.0) + 1 / std::log2(7.0);
  const std::vector<double> expected{0, 0.5, 1, 1, 0.5, gain / ideal};
  ASSERT_EQ(scores.size(), kRankingColumns.size());
  for (size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i], expected[i], 1e-12) << kRankingColumns[i];
}

TEST(Ranking, NothingFound) {
  for (const double score : score_ranking({}, question_with({0}, {1}))) EXPECT_EQ(score, 0);
}

TEST(Ranking, ARunHasNoTies) {
  std::string lines;
  const std::vector<std::string> ids{"a", "b", "c"};
  append_trec_run(lines, "q", {{2, 0.5f}, {0, 0.5f}, {1, 0.5f}}, ids, "t");
  EXPECT_EQ(lines, "q Q0 c 1 0.5 t\nq Q0 a 2 0.49999997 t\nq Q0 b 3 0.49999994 t\n");
}

}  // namespace
}  // namespace msa::eval
