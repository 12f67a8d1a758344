// A removed document, or one that a filter leaves out, influences nothing: logits are those of a bank built without it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "bank/filter.h"
#include "engine/encoder.h"
#include "engine/generator.h"
#include "engine/session.h"
#include "tiny_model.h"

namespace msa {
namespace {

using ::testing::ElementsAre;

class Forget : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::write_tiny_model(folder_.path());
    model_ = std::make_unique<Model>(context_, folder_.path().string(), Precision::kF32);
  }

  /// A bank of the documents 1 to 6 but `left_out`, each with the id it has in the whole bank.
  std::unique_ptr<Bank> bank_without(const std::vector<DocumentId>& left_out) {
    auto bank = Bank::in_memory(bank_shape(model_->transformer(), DType::kF32));
    bank->reserve_ids(6);
    std::vector<DocumentId> ids;
    std::vector<DocumentInput> inputs;
    std::vector<DocumentTokens> tokens;
    for (DocumentId id = 1; id <= 6; ++id) {
      if (std::find(left_out.begin(), left_out.end(), id) != left_out.end()) continue;
      const std::string& text = texts_[static_cast<size_t>(id - 1)];
      ids.push_back(id);
      inputs.push_back({text, "doc" + std::to_string(id), id % 2 == 0 ? "even" : "odd", ""});
      tokens.push_back(model_->prompts().document(id, model_->tokenizer().encode(text)).tokens);
    }
    const auto encoded = Encoder(model_->transformer(), DType::kF32).encode(context_, tokens);
    EXPECT_TRUE(bank->add(ids, inputs, encoded).committed());
    return bank;
  }

  /// Every logit of a question over a snapshot.
  std::vector<float> logits(std::shared_ptr<const Snapshot> snapshot, std::vector<uint8_t> allowed = {}) {
    const int top_k = model_->config().memory.top_k_documents;
    BankMemory memory(model_->config(), std::move(snapshot), {top_k, std::move(allowed)});
    Session session(context_, model_->transformer(), model_->head(), &memory, model_->head().length() + top_k);
    const Prompt prompt = model_->prompts().query("Who wrote the first program?");
    const Tensor all = session.feed_all(context_, prompt.tokens, prompt.routed);
    return {all.as<float>(), all.as<float>() + all.elements()};
  }

  const std::vector<std::string> texts_{
      "Ada Lovelace wrote the first program.", "Zurich lies on a lake.",          "Basalt is a volcanic rock.",
      "The train to Bern leaves at nine.",     "Bees dance to point to flowers.", "The moon has no air at all."};
  testing::TemporaryFolder folder_;
  Context context_{2};
  std::unique_ptr<Model> model_;
};

TEST_F(Forget, EachRemovedDocumentLeavesTheLogitsOfABankBuiltWithoutIt) {
  const auto whole = logits(bank_without({})->snapshot());
  int influential = 0;
  for (DocumentId id = 1; id <= 6; ++id) {
    const auto bank = bank_without({});
    ASSERT_TRUE(bank->remove(id));
    const auto without = bank_without({id});
    const std::vector<float> expected = logits(without->snapshot());
    EXPECT_EQ(logits(bank->snapshot()), expected) << "removed " << id;
    EXPECT_EQ(bank->fingerprint(), without->fingerprint());
    bank->compact();
    EXPECT_EQ(logits(bank->snapshot()), expected) << "compacted without " << id;
    influential += whole != expected;
  }
  EXPECT_GE(influential, 3) << "the documents matter while they are there";
}

TEST_F(Forget, AFilterGivesTheLogitsOfABankOfWhatItPermits) {
  const auto bank = bank_without({});
  const auto odd = bank_without({2, 4, 6});
  const auto allowed = bank->permitted(*bank->snapshot(), Filter::parse("namespace = 'odd'"));
  EXPECT_EQ(logits(bank->snapshot(), allowed), logits(odd->snapshot()));
  EXPECT_NE(logits(bank->snapshot()), logits(odd->snapshot()));
}

TEST_F(Forget, AFilterKeepsTheSelectionFullAndGovernsWhatIsFetched) {
  const auto bank = bank_without({});
  AskOptions options;
  options.max_answer_tokens = 4;
  options.scope.filter = "namespace = 'even'";
  const Answer answer = Generator(*model_, *bank).ask(context_, "Who wrote it?", options);
  for (const HopTrace& hop : answer.hops) {
    EXPECT_EQ(hop.routed.size(), 3u) << "top-k stays full";
    for (const RoutedDocument& d : hop.routed) EXPECT_EQ(d.id % 2, 0);
  }
  for (const FetchedDocument& d : answer.documents) EXPECT_EQ(d.id % 2, 0);
  options.scope.filter = "namespace = 'none'";
  const Answer none = Generator(*model_, *bank).ask(context_, "Who wrote it?", options);
  EXPECT_TRUE(none.documents.empty());
  EXPECT_EQ(none.hops[0].end, HopEnd::kNothingToFetch);
  options.scope.filter = "namespace = ";
  EXPECT_THROW(Generator(*model_, *bank).ask(context_, "Who wrote it?", options), Error);
}

TEST_F(Forget, AnAnswerAsOfATimeSeesTheFormerState) {
  const auto bank = bank_without({});
  const auto before = logits(bank->snapshot());
  const auto record = bank->find(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // a state of the past holds all of its millisecond
  ASSERT_TRUE(bank->remove(1));
  EXPECT_EQ(logits(bank->snapshot_at(record->created)), before);
  DocumentScope scope;
  scope.as_of = record->created;
  const auto then = Generator(*model_, *bank).route(context_, "Who wrote it?", 6, scope).documents;
  EXPECT_EQ(then.size(), 6u);
  EXPECT_EQ(Generator(*model_, *bank).route(context_, "Who wrote it?", 6).documents.size(), 5u);
}

}  // namespace
}  // namespace msa
