#include "eval/needles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../engine/shard_testing.h"
#include "../engine/tiny_model.h"
#include "eval/niah.h"

namespace msa::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

const auto kNoneTaken = [](const std::string&) { return false; };

TEST(Needles, AsRulerWordsThem) {
  std::mt19937_64 random(1);
  const NeedleSample sample = draw_needles(needle_task("single_1"), {40}, kNoneTaken, random);
  ASSERT_EQ(sample.needles.size(), 1u);
  EXPECT_THAT(sample.needles[0].sentence,
              MatchesRegex("One of the special magic numbers for [a-z]+-[a-z]+ is: [1-9][0-9]{6}\\."));
  EXPECT_THAT(sample.question,
              MatchesRegex("What is the special magic number for [a-z]+-[a-z]+ mentioned in the provided text\\?"));
  EXPECT_THAT(sample.needles[0].sentence, HasSubstr(sample.answers.at(0)));
  EXPECT_EQ(sample.needles[0].depth, 40);
}

TEST(Needles, CountsOfEveryTask) {
  std::mt19937_64 random(2);
  for (const NeedleTask& task : needle_tasks()) {
    std::vector<int> depths(static_cast<size_t>(task.needles()));
    for (size_t i = 0; i < depths.size(); ++i) depths[i] = static_cast<int>(90 - 10 * i);
    const NeedleSample sample = draw_needles(task, depths, kNoneTaken, random);
    EXPECT_EQ(sample.needles.size(), depths.size()) << task.name;
    EXPECT_EQ(sample.answers.size(), static_cast<size_t>(task.queries * task.values)) << task.name;
    for (size_t i = 1; i < sample.needles.size(); ++i) EXPECT_GE(sample.needles[i].depth, sample.needles[i - 1].depth);
    size_t wanted = 0;
    for (const Needle& needle : sample.needles) wanted += needle.wanted ? 1 : 0;
    EXPECT_EQ(wanted, sample.answers.size()) << task.name;
  }
  const NeedleSample queries = draw_needles(needle_task("multiquery"), {1, 2, 3, 4}, kNoneTaken, random);
  EXPECT_THAT(queries.question, HasSubstr(", and "));
  EXPECT_THAT(queries.question, HasSubstr("What are all the special magic numbers for "));
  const NeedleSample uuid = draw_needles(needle_task("multikey_3"), {0}, kNoneTaken, random);
  EXPECT_THAT(uuid.answers[0], MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
}

TEST(Needles, KeysOfTheHaystackAreNotHidden) {
  std::mt19937_64 random(3);
  EXPECT_THROW(draw_needles(
                   needle_task("multikey_2"), {0}, [](const std::string&) { return true; }, random),
               Error);
}

TEST(Needles, FortyDepths) {
  const std::vector<int> depths = needle_depths();
  ASSERT_EQ(depths.size(), 40u);
  EXPECT_EQ(depths.front(), 0);
  EXPECT_EQ(depths[1], 3);
  EXPECT_EQ(depths.back(), 100);
}

TEST(Needles, Sentences) {
  EXPECT_THAT(split_sentences("  One is.\nTwo\n is! Is 3.5 three?  Rest "),
              ElementsAre("One is.", "Two is!", "Is 3.5 three?", "Rest"));
  EXPECT_TRUE(split_sentences(" \n ").empty());
}

TEST(Needles, ShareOfTheAnswersInTheText) {
  EXPECT_EQ(match_all("They are 12 and AB-3.", {"12", "ab-3"}), 1.0);
  EXPECT_EQ(match_all("It is 12.", {"12", "13"}), 0.5);
  EXPECT_EQ(match_all("", {"12"}), 0.0);
}

class HaystackTest : public ::testing::Test {
 protected:
  HaystackTest() {
    testing::write_tiny_model(folder_.path());
    model_ = std::make_unique<Model>(context_, folder_.path().string(), Precision::kF32);
  }

  std::string whole_text(const Haystack& haystack) const {
    std::string text;
    for (const DocumentRecord& d : haystack.bank().list()) text += haystack.bank().find(d.id)->text + " ";
    return text;
  }

  testing::TemporaryFolder folder_;
  Context context_{2};
  std::unique_ptr<Model> model_;
};

TEST_F(HaystackTest, NeedlesComeAndGo) {
  const NeedleTask& task = needle_task("multikey_1");
  Haystack haystack(context_, *model_, task, {"One is one. Two is two. Three is three. Four is four.", 60});
  haystack.grow(1000, {});
  const std::string before = whole_text(haystack);
  const int64_t documents = haystack.bank().size();
  std::mt19937_64 random(5);
  for (const std::vector<int>& depths : {std::vector<int>{0, 0, 50, 100}, std::vector<int>{10, 33, 51, 97}}) {
    const NeedleSample sample = draw_needles(task, depths, kNoneTaken, random);
    const auto wanted = haystack.place(sample);
    const std::string text = whole_text(haystack);
    for (const Needle& needle : sample.needles) EXPECT_THAT(text, HasSubstr(needle.sentence));
    ASSERT_EQ(wanted.size(), 1u);
    EXPECT_THAT(haystack.bank().find(*wanted.begin())->text, HasSubstr(sample.answers[0]));
    EXPECT_EQ(haystack.bank().size(), documents);
  }
  haystack.place({});
  EXPECT_EQ(whole_text(haystack).size(), before.size());
  EXPECT_THAT(whole_text(haystack), ::testing::Not(HasSubstr("magic")));
  haystack.grow(2000, {});
  EXPECT_GE(haystack.bank().statistics().tokens, 2000);
}

TEST_F(HaystackTest, DepthIsTheShareOfSentencesBefore) {
  const NeedleTask& task = needle_task("single_2");
  std::string prose;
  for (int i = 0; i < 200; ++i) prose += "s" + std::to_string(i) + ". ";
  Haystack haystack(context_, *model_, task, {prose, 40});
  haystack.grow(400, {});
  const std::string text = whole_text(haystack);
  const auto n = static_cast<int>(split_sentences(text).size());
  std::mt19937_64 random(6);
  for (const int depth : {0, 25, 50, 75, 100}) {
    const auto wanted = haystack.place(draw_needles(task, {depth}, kNoneTaken, random));
    ASSERT_EQ(wanted.size(), 1u);
    const std::string document = haystack.bank().find(*wanted.begin())->text;
    const std::string next = "s" + std::to_string(n * depth / 100) + ".";  // stands behind the needle
    EXPECT_THAT(document, HasSubstr(depth == 100 ? std::string(".") : ". " + next));
    EXPECT_THAT(document, HasSubstr("magic"));
  }
}

TEST_F(HaystackTest, AnEmptyHaystackIsRefused) {
  EXPECT_THROW(Haystack(context_, *model_, needle_task("single_2"), {" \n", 64}), Error);
}

/// What the samples of one task came to, the times apart.
struct Outcome {
  std::vector<std::vector<double>> scores;
  std::vector<std::string> predictions;
  std::vector<DocumentId> documents;  // of the bank, in the end
  std::vector<std::pair<DocumentId, std::vector<float>>> routed;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

TEST_F(HaystackTest, OverRanksAsInOneProcess) {
  const NeedleTask& task = needle_task("multikey_1");
  const std::string prose = "One is one. Two is two. Three is three. Four is four. Nobody knew why.";
  const auto run = [&](int ranks, const std::filesystem::path& folder) {
    Outcome out;
    const auto body = [&](ShardDriver* driver) {
      Haystack haystack(context_, *model_, task, {prose, 60, 1, folder, driver});
      NeedleOptions options;
      options.samples = 4;
      options.ask.max_answer_tokens = 8;
      options.ask.max_hops = 2;
      for (const int64_t size : {1500, 3000}) {
        haystack.grow(size, {});
        NeedleResult result = run_needles(context_, *model_, task, haystack, options, {});
        for (size_t i = 0; i < result.scores.rows(); ++i) {
          out.scores.push_back({result.scores.row(i).begin(), result.scores.row(i).end() - 1});
        }
        out.predictions.insert(out.predictions.end(), result.predictions.begin(), result.predictions.end());
      }
      for (const DocumentRecord& d : haystack.bank().list()) out.documents.push_back(d.id);
      Generator generator(*model_, haystack.bank(), {}, driver);
      for (const RoutedDocument& d : generator.route(context_, "What is the special magic number?", 20).documents) {
        out.routed.emplace_back(d.id, d.layers);
      }
      if (driver == nullptr) return;
      const auto held = driver->hold(haystack.bank().snapshot());
      for (const SlotRange& range : held->ranges) EXPECT_GT(range.size(), 0);
    };
    testing::with_ranks(ranks, body, {}, [&](int, Exchange& exchange) { testing::serve(exchange, model_.get()); });
    return out;
  };
  const Outcome expected = run(1, {});
  ASSERT_EQ(expected.predictions.size(), 8u);
  ASSERT_EQ(expected.routed.size(), 20u);
  for (const int ranks : {1, 2, 3, 5}) {
    EXPECT_EQ(run(ranks, folder_.path() / ("bank" + std::to_string(ranks))), expected) << ranks;
  }
}

}  // namespace
}  // namespace msa::eval
