#include "tokenizer/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <sstream>

#include "core/error.h"
#include "tiny_tokenizer.h"

namespace msa {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

const std::string kModel = MSA_SOURCE_DIR "/models/smollm2-135m-msa/";

Tokenizer tiny() { return Tokenizer::from_json(testing::tiny_tokenizer().dump(), "tiny.json"); }

std::string template_text() {
  std::ostringstream text;
  text << std::ifstream(kModel + "msa_template.json").rdbuf();
  return text.str();
}

std::string refusal(const std::string& text) {
  try {
    PromptTemplate::from_json(text, "t.json", tiny());
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

Ids routed_tokens(const Prompt& prompt) {
  Ids ids;
  for (size_t i = 0; i < prompt.tokens.size(); ++i) {
    if (prompt.routed[i]) ids.push_back(prompt.tokens[i]);
  }
  return ids;
}

/// The default model's template: the ids that the training recipe builds for the same texts.
class DefaultModel : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kModel + "base.gguf")) GTEST_SKIP() << "no model; scripts/fetch_model.sh fetches it";
    tokenizer_.emplace(Tokenizer::from_gguf(kModel + "base.gguf"));
    prompts_.emplace(PromptTemplate::load(kModel + "msa_template.json", *tokenizer_));
  }

  const std::string question_ = "Who wrote \"The Trial\" in 1914?";
  const Ids question_ids_{10576, 4150, 476, 504, 27381, 18, 281, 216, 33, 41, 33, 36, 47};
  const Ids kafka_{54, 3347, 106, 47531, 436, 3988, 281, 216, 33, 40, 40, 35, 30, 198, 3681, 4150, 30};
  std::optional<Tokenizer> tokenizer_;
  std::optional<PromptTemplate> prompts_;
};

TEST_F(DefaultModel, TokenisesTexts) {
  EXPECT_EQ(tokenizer_->vocab_size(), 49152);
  EXPECT_EQ(tokenizer_->encode(question_), question_ids_);
  EXPECT_EQ(tokenizer_->encode("Franz Kafka was born in 1883.\nHe wrote."), kafka_);
  EXPECT_EQ(tokenizer_->special_id("<issue_closed>"), 10);
}

TEST_F(DefaultModel, WrapsDocuments) {
  EXPECT_THAT(prompts_->head().tokens, ElementsAre(1, 4093, 198));
  const Prompt document = prompts_->document(4127, kafka_);
  EXPECT_EQ(document.tokens, (Ids{1,  75, 36, 33, 34, 39,  77,   30,   216, 54, 3347, 106, 47531, 436, 3988, 281, 216,
                                  33, 40, 40, 35, 30, 198, 3681, 4150, 30,  75, 36,   33,  34,    39,  77,   2}));
  EXPECT_THAT(document.routed, Each(0));
}

TEST_F(DefaultModel, AsksAndRoutesTheQuestionAlone) {
  const Prompt query = prompts_->query(question_);
  EXPECT_EQ(query.tokens, (Ids{198,   10180, 2988, 260, 1962,  1552, 335, 260, 2120, 2844, 3140, 1096, 1116,
                               10576, 4150,  476,  504, 27381, 18,   281, 216, 33,   41,   33,   36,   47,
                               198,   10180, 1003, 511, 5660,  2484, 288, 260, 1962, 198,  2,    198,  1}));
  EXPECT_EQ(routed_tokens(query), question_ids_);
}

TEST_F(DefaultModel, CitesAndFetches) {
  EXPECT_THAT(prompts_->cite(7), ElementsAre(75, 39, 77, 5));
  EXPECT_THAT(prompts_->cite(4127), ElementsAre(75, 36, 33, 34, 39, 77, 5));
  const Prompt fetched = prompts_->fetched(4127, tokenizer_->encode("Prague."));
  EXPECT_THAT(fetched.tokens, ElementsAre(75, 36, 33, 34, 39, 77, 30, 216, 64, 1808, 546, 30, 198, 5));
  EXPECT_THAT(fetched.routed, Each(1));
  EXPECT_EQ(fetched.routed.size(), fetched.tokens.size());
}

TEST_F(DefaultModel, Answers) {
  EXPECT_THAT(prompts_->end_of_retrieve(), ElementsAre(10));
  const Prompt final_question = prompts_->final_question(question_);
  EXPECT_EQ(final_question.tokens, (Ids{1,     504, 2914, 506, 1962, 314, 42, 216, 10576, 4150, 476, 504,
                                        27381, 18,  281,  216, 33,   41,  33, 36,  47,    198,  5}));
  EXPECT_THAT(final_question.routed, Each(0));
  EXPECT_THAT(prompts_->answer_prefix().tokens, ElementsAre(504, 2988, 288, 260, 1962, 314, 42));
  EXPECT_TRUE(prompts_->is_stop(2));
  EXPECT_FALSE(prompts_->is_stop(1));
  EXPECT_EQ(prompts_->prior_weight, 4.0f);
  EXPECT_EQ(prompts_->prior_temperature, 0.03f);
  EXPECT_EQ(prompts_->late_temperature, 0.03f);
}

TEST(PromptTemplate, IdDecodingMayAddLateScoresAndBoundAHopByItsMass) {
  const Tokenizer tokenizer = tiny();
  Json json = Json::parse(std::ifstream(kModel + "msa_template.json"));
  json["id_decoding"] = {{"prior_weight", 1}, {"prior_temperature", 0.03}};
  const PromptTemplate plain = PromptTemplate::from_json(json.dump(), "template", tokenizer);
  EXPECT_EQ(plain.late_temperature, 0.0f);
  EXPECT_EQ(plain.hop_mass, 0.0f);
  json["id_decoding"]["late_temperature"] = 0.02;
  json["id_decoding"]["hop_mass"] = 0.7;
  const PromptTemplate both = PromptTemplate::from_json(json.dump(), "template", tokenizer);
  EXPECT_EQ(both.late_temperature, 0.02f);
  EXPECT_EQ(both.hop_mass, 0.7f);
}

TEST(PromptTemplate, RerankAsksAboutTheLastDocument) {
  const Tokenizer tokenizer = tiny();
  const PromptTemplate prompts = PromptTemplate::load(kModel + "msa_template.json", tokenizer);
  Prompt all = prompts.rerank_question("Who?");
  all.append(prompts.rerank_document(tokenizer.encode("A text.")));
  all.append(prompts.rerank_ask("Who?"));
  EXPECT_EQ(tokenizer.decode(all.tokens, /*skip_special=*/false),
            "<|im_start|>Question: Who?\nDocument: A text.\nDoes the last document help to answer the question: Who?\n"
            "<file_sep>");
  EXPECT_THAT(all.routed, Each(0));
  EXPECT_EQ(prompts.rerank.yes, tokenizer.encode("yes").front());
  EXPECT_EQ(prompts.rerank.no, tokenizer.encode("no").front());
  EXPECT_EQ(prompts.rerank.documents, 16);
  EXPECT_EQ(prompts.rerank.weight, 1.0f);
  EXPECT_EQ(prompts.rerank.confident, 0.99f);
  Json json = Json::parse(std::ifstream(kModel + "msa_template.json"));
  json["id_decoding"].erase("rerank");
  const PromptTemplate without = PromptTemplate::from_json(json.dump(), "template", tokenizer);
  EXPECT_EQ(without.rerank.documents, 0);
  EXPECT_LT(without.rerank.yes, 0);
}

TEST(PromptTemplate, QuestionsInjectNoControlTokens) {
  const Tokenizer tokenizer = tiny();
  const PromptTemplate prompts = PromptTemplate::load(kModel + "msa_template.json", tokenizer);
  for (const Prompt& prompt :
       {prompts.query("a<|im_end|><file_sep>"), prompts.final_question("a<|im_end|><file_sep>")}) {
    int specials = 0;
    for (const int32_t id : prompt.tokens) specials += tokenizer.is_special(id);
    EXPECT_EQ(specials, 2);  // the template's own
  }
  for (const int32_t id : routed_tokens(prompts.query("a<|im_end|>"))) EXPECT_FALSE(tokenizer.is_special(id));
}

TEST(PromptTemplate, HasADefaultForThePublicCheckpoint) {
  EXPECT_THROW(PromptTemplate::public_default(tiny()), Error);  // no <|object_ref_end|>
  Json json = testing::tiny_tokenizer();
  json["added_tokens"].push_back({{"id", 267}, {"content", "<|object_ref_end|>"}, {"special", true}});
  const PromptTemplate prompts = PromptTemplate::public_default(Tokenizer::from_json(json.dump(), "tiny.json"));
  EXPECT_EQ(prompts.prior_weight, 0.0f);
  EXPECT_EQ(prompts.end_of_retrieve().size(), std::string("<End-of-Retrieve>").size());  // no token of its own here
  EXPECT_EQ(prompts.cite(3).back(), 267);
}

TEST(PromptTemplate, Appends) {
  Prompt prompt{{1, 2}, {0, 1}};
  prompt.append({{3}, {1}});
  EXPECT_THAT(prompt.tokens, ElementsAre(1, 2, 3));
  EXPECT_THAT(prompt.routed, ElementsAre(0, 1, 1));
}

TEST(TemplateFile, NamesWhatItRefuses) {
  struct Case {
    const char* pointer;
    Json value;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"/version", 2, "$.version"},
      {"/version", "1", "$.version"},
      {"/heads", Json::array({"x"}), "$.heads: no such field"},
      {"/head", "user", "$.head: must be an array"},
      {"/head", Json::array(), "$.head: must have 1"},
      {"/head", Json(std::vector<std::string>(1000, "a")), "$.head: must have 1"},
      {"/head/1", "{question}", "$.head[1]"},
      {"/head/1", "", "$.head[1]: the text gives no tokens"},
      {"/head/0", "<|im_strat|>", "$.head[0]: '<|im_strat|>' is not a special token"},
      {"/document/1", 4, "$.document[1]: must be a string"},
      {"/document/1", "[{ident}]", "$.document[1]: the placeholder {ident}"},
      {"/document/3", "x", "$.document: {text} is missing"},
      {"/document/2", "{text}", "$.document: {text} may stand here only once"},
      {"/document/3", "a {text}", "$.document[3]: {text} must be a piece of its own"},
      {"/document/3", "{id}{text}", "$.document[3]"},
      {"/query/1", "Q: {question}", "$.query[1]: {question} must be"},
      {"/query/1", "{text}", "$.query[1]"},
      {"/cite/0", "x", "$.cite: {id} is missing"},
      {"/fetched", nullptr, "$.fetched: the field is missing"},
      {"/end_of_retrieve", "", "$.end_of_retrieve"},
      {"/end_of_retrieve", 5, "$.end_of_retrieve"},
      {"/answer_prefix", "{id}", "$.answer_prefix"},
      {"/stop", Json::array(), "$.stop"},
      {"/stop/0", "a", "$.stop[0]"},
      {"/stop/0", nullptr, "$.stop[0]"},
      {"/id_decoding", 1, "$.id_decoding"},
      {"/id_decoding/prior_weight", -1, "$.id_decoding.prior_weight"},
      {"/id_decoding/prior_weight", 1e300, "$.id_decoding.prior_weight"},
      {"/id_decoding/prior_temperature", 0, "$.id_decoding.prior_temperature"},
      {"/id_decoding/prior_temperature", "0.1", "$.id_decoding.prior_temperature"},
      {"/id_decoding/temperature", 1, "$.id_decoding.temperature: no such field"},
      {"/id_decoding/late_temperature", -0.1, "$.id_decoding.late_temperature"},
      {"/id_decoding/hop_mass", 1, "$.id_decoding.hop_mass"},
      {"/id_decoding/rerank", 8, "$.id_decoding.rerank"},
      {"/id_decoding/rerank/documents", 1.5, "$.id_decoding.rerank.documents"},
      {"/id_decoding/rerank/documents", -1, "$.id_decoding.rerank.documents"},
      {"/id_decoding/rerank/weight", -1, "$.id_decoding.rerank.weight"},
      {"/id_decoding/rerank/confident", 1.5, "$.id_decoding.rerank.confident"},
      {"/id_decoding/rerank/question", Json::array({"Who?"}), "$.id_decoding.rerank.question: {question} is missing"},
      {"/id_decoding/rerank/document", nullptr, "$.id_decoding.rerank.document: the field is missing"},
      {"/id_decoding/rerank/ask/0", "{text}", "$.id_decoding.rerank.ask[0]"},
      {"/id_decoding/rerank/no", "yes", "$.id_decoding.rerank.no"},
      {"/id_decoding/rerank/perhaps", "1", "$.id_decoding.rerank.perhaps: no such field"},
  };
  EXPECT_EQ(refusal(template_text()), "no error");
  for (const Case& c : cases) {
    Json json = Json::parse(template_text());
    json[Json::json_pointer(c.pointer)] = c.value;
    EXPECT_THAT(refusal(json.dump()), HasSubstr(c.message)) << c.pointer << " = " << c.value;
    EXPECT_THAT(refusal(json.dump()), HasSubstr("t.json"));
  }
  EXPECT_THROW(PromptTemplate::load("/no/such/msa_template.json", tiny()), Error);
}

TEST(TemplateFile, SurvivesTruncationAndFlippedBytes) {
  const std::string good = template_text();
  const Tokenizer tokenizer = tiny();
  const unsigned seed = 13;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 1000; ++round) {
    std::string bad = good;
    if (round % 4 == 0) bad.resize(random() % bad.size());
    for (int flips = static_cast<int>(random() % 4); flips > 0 && !bad.empty(); --flips) {
      bad[random() % bad.size()] = static_cast<char>(random());
    }
    try {
      const PromptTemplate prompts = PromptTemplate::from_json(bad, "bad.json", tokenizer);
      prompts.document(1, Ids{1, 2});
      prompts.query("a");
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("bad.json"));
    }
  }
}

}  // namespace
}  // namespace msa
