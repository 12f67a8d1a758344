#include "eval/question_router.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "../engine/tiny_model.h"
#include "engine/encoder.h"
#include "engine/generator.h"

namespace msa::eval {
namespace {

class QuestionRouterTest : public ::testing::Test {
 protected:
  QuestionRouterTest() {
    testing::write_tiny_model(folder_.path());
    model_ = std::make_unique<Model>(context_, folder_.path().string(), Precision::kF32);
    bank_ = Bank::in_memory(bank_shape(model_->transformer(), DType::kF32));
    for (int i = 0; i < 12; ++i) add("Document " + std::to_string(i * i * 37) + " tells of things.");
  }

  void add(const std::string& text) {
    const std::vector<DocumentId> ids = bank_->reserve_ids(1);
    const std::vector<DocumentTokens> tokens{
        model_->prompts().document(ids[0], model_->tokenizer().encode(text)).tokens};
    Encoder encoder(model_->transformer(), DType::kF32);
    const auto encoded = encoder.encode(context_, tokens);
    ASSERT_TRUE(bank_->add(ids, std::vector<DocumentInput>{{text, "", "", ""}}, encoded).committed());
  }

  /// Mean scores [questions][slots], the layers' mean.
  std::vector<std::vector<float>> scores(const RoutingOptions& options) {
    const std::vector<std::string_view> questions(questions_.begin(), questions_.end());
    std::vector<std::vector<float>> out;
    QuestionRouter(*model_, bank_->snapshot(), options)
        .route(context_, questions, [&](size_t i, const RoutedMemory& m) {
          EXPECT_EQ(i, out.size());
          out.emplace_back(m.scores(0).begin(), m.scores(0).end());
          for (size_t s = 0; s < out.back().size(); ++s) out.back()[s] = (out.back()[s] + m.scores(1)[s]) / 2;
        });
    return out;
  }

  testing::TemporaryFolder folder_;
  Context context_{2};
  std::unique_ptr<Model> model_;
  std::unique_ptr<Bank> bank_;
  std::vector<std::string> questions_{"What is document 37?", "Who?", "Tell of things that were told long ago, please.",
                                      "148", "Which documents tell of anything at all?"};
};

TEST_F(QuestionRouterTest, AsOneQuestionAtATime) {
  const auto packed = scores({});
  ASSERT_EQ(packed.size(), questions_.size());
  for (size_t q = 0; q < questions_.size(); ++q) {
    for (const RoutedDocument& d : Generator(*model_, *bank_).route(context_, questions_[q], 12).documents) {
      EXPECT_NEAR(packed[q][static_cast<size_t>(d.id - 1)], d.score, 1e-5) << questions_[q] << " document " << d.id;
    }
  }
}

TEST_F(QuestionRouterTest, TheSizeOfAPackChangesNothing) {
  const auto alone = scores({.pack_tokens = 1});
  const auto together = scores({.pack_tokens = 100000});
  ASSERT_EQ(alone.size(), together.size());
  for (size_t q = 0; q < alone.size(); ++q) {
    for (size_t s = 0; s < alone[q].size(); ++s) EXPECT_NEAR(alone[q][s], together[q][s], 1e-5);
  }
}

TEST_F(QuestionRouterTest, WithoutAttentionAScoreDependsOnNoOtherDocument) {
  const auto before = scores({.attend_memory = false});
  const auto attended_before = scores({});
  for (const DocumentId id : {2, 3, 5, 7, 8, 9, 11, 12}) ASSERT_TRUE(bank_->remove(id));
  const auto after = scores({.attend_memory = false});
  const auto attended_after = scores({});
  bool attention_matters = false;
  for (size_t q = 0; q < before.size(); ++q) {
    for (const size_t slot : {0, 3, 5, 9}) {
      EXPECT_EQ(before[q][slot], after[q][slot]);
      attention_matters = attention_matters || attended_before[q][slot] != attended_after[q][slot];
    }
  }
  EXPECT_TRUE(attention_matters);
}

TEST_F(QuestionRouterTest, AQuestionThatDoesNotFitIsRefused) {
  questions_.push_back(std::string(5000, 'x'));
  EXPECT_THROW(scores({}), Error);
}

}  // namespace
}  // namespace msa::eval
