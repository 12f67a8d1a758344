#include "eval/answer_metrics.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace msa::eval {
namespace {

TEST(AnswerMetrics, Normalisation) {
  EXPECT_EQ(normalise_answer("  The  Denver-Broncos, a TEAM! "), "denverbroncos team");
  EXPECT_EQ(normalise_answer("an anthem for the theatre"), "anthem for theatre");
  EXPECT_EQ(normalise_answer("ÉCOLE\xC2\xA0nationale"), "école nationale");
  EXPECT_EQ(normalise_answer("the"), "");
  EXPECT_EQ(normalise_answer("broken \xFF end"), "broken \xEF\xBF\xBD end");
}

TEST(AnswerMetrics, ByHand) {
  const std::vector<std::string> answers{"Denver Broncos", "the Broncos"};
  EXPECT_EQ(score_answer("broncos", answers).exact_match, 1);
  EXPECT_EQ(score_answer("broncos", answers).f1, 1);
  const AnswerScores partly = score_answer("The Carolina Broncos of Denver", answers);
  EXPECT_EQ(partly.exact_match, 0);
  EXPECT_NEAR(partly.f1, 2 * (2.0 / 4) * 1 / (2.0 / 4 + 1), 1e-12);
  EXPECT_EQ(partly.answer_in_text, 1);
  EXPECT_EQ(score_answer("Denver, Colorado", answers).answer_in_text, 0);
  EXPECT_EQ(score_answer("", answers).f1, 0);
}

TEST(AnswerMetrics, RepeatedWordsCountAsOftenAsTheyOccur) {
  const std::vector<std::string> answers{"new york new york"};
  EXPECT_NEAR(score_answer("new york", answers).f1, 2 * 1 * 0.5 / 1.5, 1e-12);
}

TEST(AnswerMetrics, InTextMeansWholeWords) {
  const std::vector<std::string> answers{"1995", "the"};
  EXPECT_EQ(answer_in_text("It was in 1995.", answers), 1);
  EXPECT_EQ(answer_in_text("It was in 19950.", answers), 0);
}

}  // namespace
}  // namespace msa::eval
