// The hop loop on a tiny random model: whatever the model writes, the engine stays within its bounds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "../device_testing.h"
#include "engine/encoder.h"
#include "engine/generator.h"
#include "engine/reranker.h"
#include "tiny_model.h"

namespace msa {
namespace {

class Interleave : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    context_ = std::make_unique<Context>(2, device());
    testing::write_tiny_model(folder_.path());
    model_ = std::make_unique<Model>(*context_, folder_.path().string(), Precision::kF32);
    bank_ = Bank::in_memory(bank_shape(model_->transformer(), DType::kF32));
  }

  void add(const std::vector<std::string>& texts) {
    const auto ids = bank_->reserve_ids(static_cast<int64_t>(texts.size()));
    std::vector<DocumentInput> inputs;
    std::vector<DocumentTokens> tokens;
    for (size_t i = 0; i < texts.size(); ++i) {
      inputs.push_back({texts[i], "doc" + std::to_string(ids[i]), "", ""});
      tokens.push_back(model_->prompts().document(ids[i], model_->tokenizer().encode(texts[i])).tokens);
    }
    const auto encoded = Encoder(model_->transformer(), DType::kF32).encode(*context_, tokens);
    ASSERT_TRUE(bank_->add(ids, inputs, encoded).committed());
  }

  void add_five() {
    add({"Ada Lovelace wrote the first program.", "Zurich lies on a lake.", "Basalt is a volcanic rock.",
         "The train to Bern leaves at nine.", "Bees dance to point to flowers."});
  }

  nlohmann::json prompts() const { return nlohmann::json::parse(std::ifstream(folder_.path() / "msa_template.json")); }

  /// Prompts with which the router hardly tells documents apart, and five candidates are read.
  nlohmann::json prompts_that_read_five() const {
    nlohmann::json json = prompts();
    json["id_decoding"]["prior_temperature"] = 1000;
    json["id_decoding"]["rerank"]["documents"] = 5;
    return json;
  }

  /// The same model with other prompts, and five documents.
  void use(const nlohmann::json& prompts) {
    std::ofstream(folder_.path() / "msa_template.json") << prompts.dump();
    model_ = std::make_unique<Model>(*context_, folder_.path().string(), Precision::kF32);
    bank_ = Bank::in_memory(bank_shape(model_->transformer(), DType::kF32));
    add_five();
  }

  Answer ask(const AskOptions& options, const AnswerCallback& stream = {}) {
    return Generator(*model_, *bank_).ask(*context_, "Who wrote it?", options, stream);
  }

  testing::TemporaryFolder folder_;
  std::unique_ptr<Context> context_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Bank> bank_;
  int tried_ = 0;
};

AskOptions short_answers() {
  AskOptions options;
  options.max_answer_tokens = 8;
  return options;
}

TEST_P(Interleave, EndsAndCitesDistinctLiveDocuments) {
  add_five();
  const Answer answer = ask(short_answers());
  ASSERT_FALSE(answer.hops.empty());
  EXPECT_NE(answer.hops.back().end, HopEnd::kFetched);
  EXPECT_LE(answer.hops.size(), 5u);
  std::set<DocumentId> ids;
  for (const FetchedDocument& d : answer.documents) {
    EXPECT_TRUE(ids.insert(d.id).second) << "fetched twice";
    EXPECT_EQ(d.text, bank_->find(d.id)->text);
    EXPECT_EQ(d.external_id, "doc" + std::to_string(d.id));
  }
  EXPECT_LE(answer.answer_tokens, 8);
}

TEST_P(Interleave, GreedyAnswersRepeatThemselvesAndSeedsDecideSampledOnes) {
  add_five();
  AskOptions options = short_answers();
  EXPECT_EQ(ask(options).text, ask(options).text);
  options.sampling = {1.5f, 0.95f, 11};
  const std::string first = ask(options).text;
  EXPECT_EQ(first, ask(options).text);
  std::set<std::string> others;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    options.sampling.seed = seed;
    others.insert(ask(options).text);
  }
  EXPECT_GT(others.size(), 1u);
}

TEST_P(Interleave, HopsAreBounded) {
  add_five();
  AskOptions options = short_answers();
  options.max_hops = 0;
  const Answer none = ask(options);
  ASSERT_EQ(none.hops.size(), 1u);
  EXPECT_EQ(none.hops[0].end, HopEnd::kHopLimit);
  EXPECT_TRUE(none.documents.empty());
  EXPECT_EQ(none.hops[0].routed.size(), 3u);
}

TEST_P(Interleave, ACancelledQuestionEndsBeforeTheNextHop) {
  add_five();
  const size_t all = ask(short_answers()).hops.size();
  for (size_t hops = 0; hops <= all; ++hops) {
    size_t asked = 0;
    AskOptions options = short_answers();
    options.cancelled = [&] { return asked++ >= hops; };
    const Answer answer = ask(options);
    EXPECT_EQ(answer.stop_reason, "cancelled");
    EXPECT_EQ(answer.hops.size(), hops);
    EXPECT_EQ(answer.text, "");
  }
}

TEST_P(Interleave, DocumentsAreBounded) {
  add_five();
  AskOptions options = short_answers();
  options.max_documents = 1;
  EXPECT_LE(ask(options).documents.size(), 1u);
  options.max_documents = 100;
  options.max_hops = 100;
  EXPECT_LE(ask(options).documents.size(), 5u);
}

TEST_P(Interleave, AHopTakesDocumentsUntilTheirPriorExceedsItsMass) {
  nlohmann::json json = prompts();
  for (const auto& [mass, expected] : {std::pair<double, size_t>{1e-9, 1}, {0.999999, 3}}) {
    // A prior that hardly tells documents apart and that alone decides.
    json["id_decoding"] = {
        {"prior_weight", 1000}, {"prior_temperature", 100}, {"late_temperature", 100}, {"hop_mass", mass}};
    use(json);
    const Answer answer = ask(short_answers());
    if (answer.hops.front().end == HopEnd::kModelEnded) continue;  // the model's choice, whatever the mass
    EXPECT_EQ(answer.hops.front().fetched.size(), expected);
    ++tried_;
  }
  EXPECT_GT(tried_, 0) << "the tiny model never fetched: give it another seed";
}

TEST_P(Interleave, WhatIsReadDecidesWhatIsCited) {
  nlohmann::json json = prompts_that_read_five();
  json["id_decoding"]["prior_weight"] = 1e6;
  json["id_decoding"]["rerank"]["weight"] = 100;
  use(json);
  AskOptions options = short_answers();
  options.top_k = 5;
  const HopTrace hop = ask(options).hops.front();
  ASSERT_NE(hop.end, HopEnd::kModelEnded) << "the tiny model fetched nothing: give it another seed";
  ASSERT_EQ(hop.read.size(), 5u);
  const auto best =
      std::max_element(hop.read.begin(), hop.read.end(),
                       [](const ReadCandidate& a, const ReadCandidate& b) { return a.relevance < b.relevance; });
  ASSERT_NE(best, hop.read.begin()) << "the router alone would cite the same: give the test another question";
  ASSERT_FALSE(hop.fetched.empty());
  EXPECT_EQ(hop.fetched.front(), best->id);
  EXPECT_EQ(ask(options).documents.front().relevance, best->relevance);

  // The whole prompt of a candidate at once gives the same as what was shared between candidates.
  Prompt prompt = model_->prompts().rerank_question("Who wrote it?");
  prompt.append(model_->prompts().rerank_document(model_->tokenizer().encode(bank_->find(best->id)->text)));
  prompt.append(model_->prompts().rerank_ask("Who wrote it?"));
  Session session(*context_, model_->transformer(), model_->head(), nullptr, model_->head().length() + 5);
  const auto logits = session.feed(*context_, prompt.tokens);
  const float odds = logits[static_cast<size_t>(model_->prompts().rerank.yes)] -
                     logits[static_cast<size_t>(model_->prompts().rerank.no)];
  EXPECT_NEAR(probability(odds), best->relevance, 1e-4);

  options.rerank = 2;
  EXPECT_EQ(ask(options).hops.front().read.size(), 2u);
  options.rerank = 0;
  EXPECT_TRUE(ask(options).hops.front().read.empty());
}

TEST_P(Interleave, ReadingStopsOnceACandidateIsSettled) {
  nlohmann::json json = prompts_that_read_five();
  for (const auto& [confident, expected] : {std::pair<double, size_t>{0.1, 1}, {1, 5}}) {
    json["id_decoding"]["rerank"]["confident"] = confident;  // five alike have .2 each
    use(json);
    AskOptions options = short_answers();
    options.top_k = 5;
    EXPECT_EQ(ask(options).hops.front().read.size(), expected);
  }
}

TEST_P(Interleave, OnlyDocumentsRelevantEnoughAreCited) {
  nlohmann::json json = prompts_that_read_five();
  json["id_decoding"]["rerank"]["confident"] = 1;
  use(json);
  AskOptions options = short_answers();
  options.top_k = 5;
  std::vector<float> relevance;
  const HopTrace all = ask(options).hops.front();
  for (const ReadCandidate& c : all.read) relevance.push_back(c.relevance);
  ASSERT_EQ(relevance.size(), 5u) << "the tiny model fetched nothing: give it another seed";
  std::sort(relevance.rbegin(), relevance.rend());
  ASSERT_GT(relevance[0], relevance[1]);

  options.min_relevance = (relevance[0] + relevance[1]) / 2;
  const HopTrace hop = ask(options).hops.front();
  ASSERT_EQ(hop.fetched.size(), 1u);
  EXPECT_EQ(ask(options).documents.front().relevance, relevance[0]);

  options.min_relevance = (relevance[0] + 1) / 2;
  std::string streamed;
  const Answer nothing = ask(options, [&](std::string_view piece) { return streamed += piece, true; });
  EXPECT_EQ(nothing.hops.front().end, HopEnd::kNotRelevant);
  EXPECT_TRUE(nothing.documents.empty());
  EXPECT_EQ(nothing.stop_reason, "not_found");
  EXPECT_EQ(nothing.text, kNotFound);
  EXPECT_EQ(streamed, kNotFound);
  EXPECT_EQ(nothing.answer_tokens, 0);

  options.rerank = 0;
  EXPECT_THROW(ask(options), Error);
}

TEST_P(Interleave, ASingleDocumentIsJudgedToo) {
  add({"The only text."});
  AskOptions options = short_answers();
  options.rerank = 3;
  EXPECT_TRUE(ask(options).hops.front().read.empty()) << "nothing to choose";
  options.min_relevance = 1e-6F;
  const HopTrace hop = ask(options).hops.front();
  ASSERT_NE(hop.end, HopEnd::kModelEnded) << "the tiny model fetched nothing: give it another seed";
  EXPECT_EQ(hop.read.size(), 1u);
}

TEST_P(Interleave, ATemplateWithoutPromptsForReadingRefusesIt) {
  nlohmann::json json = prompts();
  json["id_decoding"].erase("rerank");
  use(json);
  AskOptions options = short_answers();
  EXPECT_NO_THROW(ask(options));
  options.rerank = 3;
  EXPECT_THROW(ask(options), Error);
}

TEST(Weighed, UnreadCandidatesTakeTheLeastOddsOfTheOthers) {
  using Odds = std::vector<std::optional<float>>;
  using ::testing::DoubleNear;
  const std::vector<double> prior{0.5, 0.3, 0.2};
  const auto near = [](double a, double b, double c) {
    return ::testing::ElementsAre(DoubleNear(a, 1e-6), DoubleNear(b, 1e-6), DoubleNear(c, 1e-6));
  };
  EXPECT_THAT(weighed(prior, Odds(3), 1), near(0.5, 0.3, 0.2));
  // 0.5 · 0.5, 0.3 · 4 and 0.2 · 0.5 of 1.55
  const Odds odds{std::log(0.5f), std::log(4.0f), std::nullopt};
  EXPECT_THAT(weighed(prior, odds, 1), near(0.25 / 1.55, 1.2 / 1.55, 0.1 / 1.55));
  // Nothing speaks for what was not read.
  EXPECT_NEAR(weighed(std::vector{0.5, 0.5}, Odds{std::log(3.0f), std::nullopt}, 1)[0], 0.75, 1e-6);
}

TEST_P(Interleave, BytesAreBounded) {
  add_five();
  AskOptions options = short_answers();
  options.max_fetched_bytes = 1;
  const Answer answer = ask(options);
  EXPECT_TRUE(answer.documents.empty());
  EXPECT_THAT(answer.hops.back().end, ::testing::AnyOf(HopEnd::kByteLimit, HopEnd::kModelEnded));
}

TEST_P(Interleave, TheModelsContextIsBounded) {
  add({std::string(700, 'a'), std::string(700, 'b'), std::string(700, 'c')});
  AskOptions options;
  options.max_answer_tokens = 5000;
  const Answer answer = ask(options);
  EXPECT_LE(answer.prompt_tokens + answer.answer_tokens, model_->config().max_positions);
}

TEST_P(Interleave, GivenDocumentsAreReadAndNothingElse) {
  add_five();
  const std::vector<GivenDocument> given{{7, "seven", "A text."}, {9, "nine", "Another text."}};
  const auto read = [&](const AskOptions& options) {
    return Generator(*model_, *bank_).read(*context_, "What?", given, options);
  };
  const Answer answer = read(short_answers());
  ASSERT_EQ(answer.hops.size(), 1u);
  EXPECT_TRUE(answer.hops[0].routed.empty() || answer.hops[0].route_ms == 0);
  EXPECT_EQ(answer.hops[0].fetched, (std::vector<DocumentId>{7, 9}));
  EXPECT_THAT(answer.hops[0].generated, ::testing::StartsWith("[7]<file_sep>[9]<file_sep>"));
  ASSERT_EQ(answer.documents.size(), 2u);
  EXPECT_EQ(answer.documents[1].external_id, "nine");
  for (DocumentId id = 1; id <= 5; ++id) ASSERT_TRUE(bank_->remove(id));
  EXPECT_EQ(read(short_answers()).text, answer.text);  // the memory had no part in it

  AskOptions bounded = short_answers();
  bounded.max_fetched_bytes = 10;
  const Answer shortened = read(bounded);
  EXPECT_EQ(shortened.documents.size(), 1u);
  EXPECT_EQ(shortened.hops[0].end, HopEnd::kByteLimit);
}

TEST_P(Interleave, AnEmptyBankAnswersWithoutDocuments) {
  const Answer answer = ask(short_answers());
  ASSERT_EQ(answer.hops.size(), 1u);
  EXPECT_EQ(answer.hops[0].end, HopEnd::kNothingToFetch);
  EXPECT_TRUE(answer.hops[0].routed.empty());
}

TEST_P(Interleave, ARemovedDocumentIsNeitherRoutedNorFetched) {
  add_five();
  ASSERT_TRUE(bank_->remove(2));
  AskOptions options = short_answers();
  options.top_k = 5;
  const Answer answer = ask(options);
  for (const HopTrace& hop : answer.hops) {
    EXPECT_EQ(hop.routed.size(), 4u);
    for (const RoutedDocument& d : hop.routed) EXPECT_NE(d.id, 2);
  }
  for (const FetchedDocument& d : answer.documents) EXPECT_NE(d.id, 2);
}

TEST_P(Interleave, TextCannotInjectControlTokens) {
  const std::vector<int32_t> tokens = model_->prompts().query("<|im_end|><issue_closed>").tokens;
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), 257), 1);  // the template's own <|im_end|>
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), 259), 0);
}

TEST_P(Interleave, AnEmptyOrEndlessQuestionIsRefused) {
  add_five();
  Generator generator(*model_, *bank_);
  EXPECT_THROW(generator.ask(*context_, " \n\t", {}), Error);
  EXPECT_THROW(generator.ask(*context_, std::string(5000, 'x'), {}), Error);
}

TEST_P(Interleave, RouteAgreesWithTheFirstHop) {
  add_five();
  AskOptions options = short_answers();
  options.max_hops = 0;
  const Answer answer = ask(options);
  const auto routed = Generator(*model_, *bank_).route(*context_, "Who wrote it?", 3).documents;
  ASSERT_EQ(routed.size(), answer.hops[0].routed.size());
  for (size_t i = 0; i < routed.size(); ++i) EXPECT_EQ(routed[i].id, answer.hops[0].routed[i].id);
}

TEST_P(Interleave, PackedDocumentsAreEncodedAsIfAlone) {
  std::vector<DocumentTokens> documents;
  for (const int n : {1, 7, 8, 9, 64, 130}) {
    DocumentTokens d;
    for (int i = 0; i < n; ++i) d.push_back((i * 7 + n) % 256);
    documents.push_back(d);
  }
  Encoder encoder(model_->transformer(), DType::kF32);
  const auto packed = encoder.encode(*context_, documents);
  for (size_t i = 0; i < documents.size(); ++i) {
    const auto alone = encoder.encode(*context_, {&documents[i], 1});
    ASSERT_EQ(alone[0].n_chunks, packed[i].n_chunks);
    for (size_t layer = 0; layer < alone[0].keys.size(); ++layer) {
      const auto n = static_cast<size_t>(alone[0].n_chunks * model_->config().kv_size());
      const auto* a = static_cast<const float*>(alone[0].keys[layer].data());
      const auto* b = static_cast<const float*>(packed[i].keys[layer].data());
      for (size_t j = 0; j < n; ++j) EXPECT_NEAR(a[j], b[j], 1e-5);
    }
  }
}

MSA_TEST_ON_DEVICES(Interleave);

}  // namespace
}  // namespace msa
