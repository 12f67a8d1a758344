#include "train/data/samples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tiny_sets.h"

namespace msa::train {
namespace {

using ::testing::Each;

/// What the engine's template functions give, piece by piece, with the label that each piece should carry.
class Expected {
 public:
  Expected& given(const Prompt& prompt) {
    prompt_.append(prompt);
    predicted_.resize(prompt_.tokens.size(), 0);
    return *this;
  }
  Expected& given(const std::vector<int32_t>& tokens) {
    return given(Prompt{tokens, std::vector<uint8_t>(tokens.size(), 0)});
  }
  Expected& written(const std::vector<int32_t>& tokens) {
    prompt_.append({tokens, std::vector<uint8_t>(tokens.size(), 0)});
    predicted_.resize(prompt_.tokens.size(), 1);
    return *this;
  }
  void check(const Sample& sample) const {
    EXPECT_EQ(sample.tokens, prompt_.tokens);
    EXPECT_EQ(sample.routed, prompt_.routed);
    EXPECT_EQ(sample.predicted, predicted_);
  }

 private:
  Prompt prompt_;
  std::vector<uint8_t> predicted_;
};

class SamplesTest : public ::testing::Test {
 protected:
  std::vector<int32_t> encode(const std::string& text) const { return sets_.tokenizer->encode(text); }
  std::vector<int32_t> stop() const { return {sets_.tokenizer->special_id("<|im_end|>")}; }

  TinySets sets_;
  const PromptTemplate& prompts_ = *sets_.prompts;
  SampleBuilder builder_{*sets_.tokenizer, prompts_};
  std::vector<int32_t> first_ = encode("The first text."), second_ = encode("A second one.");
};

TEST_F(SamplesTest, ACandidateIsJudgedBehindWhatWasFetched) {
  const Sample sample = builder_.rerank("Who?", std::vector<Hop>{{{3, first_}}}, second_);
  EXPECT_EQ(sample.kind, SampleKind::kRerank);
  Expected()
      .given(prompts_.rerank_question("Who?"))
      .given(prompts_.rerank_document(first_))
      .given(prompts_.rerank_document(second_))
      .given(prompts_.rerank_ask("Who?"))
      .check(sample);
  EXPECT_THAT(sample.routed, Each(0));
}

TEST_F(SamplesTest, FirstHop) {
  const Sample sample = builder_.retrieve("Who?", {}, std::vector<int64_t>{17, 4});
  EXPECT_EQ(sample.kind, SampleKind::kRetrieve);
  Expected()
      .given(prompts_.query("Who?"))
      .written(prompts_.cite(17))
      .written(prompts_.cite(4))
      .written(stop())
      .check(sample);
  EXPECT_EQ(sets_.decode(sample.tokens),
            "\nAnswer.\nWho?\nReturn documents.\n<|im_end|>\n<|im_start|>[17]<file_sep>[4]<file_sep><|im_end|>");
}

TEST_F(SamplesTest, LaterHopRoutesWhatWasFetched) {
  const std::vector<Hop> earlier = {{{17, first_}, {4, second_}}};
  Expected()
      .given(prompts_.query("Who?"))
      .given(prompts_.cite(17))
      .given(prompts_.cite(4))
      .given(prompts_.fetched(17, first_))
      .given(prompts_.fetched(4, second_))
      .written(prompts_.cite(9))
      .written(stop())
      .check(builder_.retrieve("Who?", earlier, std::vector<int64_t>{9}));
}

TEST_F(SamplesTest, Answer) {
  const std::vector<Hop> hops = {{{17, first_}}, {{4, second_}}};
  const Sample sample = builder_.answer("Who?", hops, "Ada");
  EXPECT_EQ(sample.kind, SampleKind::kAnswer);
  Expected()
      .given(prompts_.query("Who?"))
      .given(prompts_.cite(17))
      .given(prompts_.fetched(17, first_))
      .given(prompts_.cite(4))
      .given(prompts_.fetched(4, second_))
      .written(prompts_.end_of_retrieve())
      .given(prompts_.final_question("Who?"))
      .written(prompts_.answer_prefix().tokens)
      .written(encode(" Ada"))
      .written(stop())
      .check(sample);
}

TEST_F(SamplesTest, ControlTokensInTextsStayText) {
  const Sample sample = builder_.answer("<|im_end|>?", {}, "<issue_closed>");
  const int32_t end = sets_.tokenizer->special_id("<issue_closed>");
  EXPECT_EQ(std::count(sample.tokens.begin(), sample.tokens.end(), end), 1);
  EXPECT_EQ(std::count(sample.tokens.begin(), sample.tokens.end(), stop()[0]), 2);  // of the query, and at the end
}

TEST_F(SamplesTest, Reconstruction) {
  const std::vector<int32_t> beginning(first_.begin(), first_.begin() + 5);
  const Sample cut = builder_.reconstruct(17, first_, 5);
  EXPECT_EQ(cut.kind, SampleKind::kReconstruct);
  Expected().given(prompts_.query("[17]")).written(beginning).check(cut);
  Expected().given(prompts_.query("[17]")).written(first_).written(stop()).check(builder_.reconstruct(17, first_, 100));
}

TEST_F(SamplesTest, Language) {
  const Sample sample = builder_.language(first_);
  EXPECT_EQ(sample.kind, SampleKind::kLanguage);
  EXPECT_EQ(sample.tokens, first_);
  EXPECT_THAT(sample.routed, Each(0));
  EXPECT_EQ(std::count(sample.predicted.begin(), sample.predicted.end(), 0), 1);
  EXPECT_EQ(sample.predicted.front(), 0);
}

TEST_F(SamplesTest, TextsAreCutFromTheLongest) {
  const std::vector<int32_t> tokens(100, 1);
  const auto text = [&](size_t n) { return std::span(tokens).first(n); };
  const auto lengths = [](const std::vector<Hop>& hops) {
    std::vector<size_t> out;
    for (const Hop& hop : hops) {
      for (const CitedDocument& document : hop) out.push_back(document.text.size());
    }
    return out;
  };
  std::vector<Hop> hops = {{{1, text(10)}, {2, text(100)}}, {{3, text(60)}}};
  EXPECT_TRUE(cut_texts(hops, 200, 8));
  EXPECT_THAT(lengths(hops), ::testing::ElementsAre(10, 100, 60));
  EXPECT_TRUE(cut_texts(hops, 90, 8));
  EXPECT_THAT(lengths(hops), ::testing::ElementsAre(10, 40, 40));
  EXPECT_FALSE(cut_texts(hops, 20, 8));
  EXPECT_THAT(lengths(hops), ::testing::ElementsAre(10, 40, 40));
  EXPECT_FALSE(cut_texts(hops, -5, 8));
  std::vector<Hop> none;
  EXPECT_TRUE(cut_texts(none, 0, 8));
}

}  // namespace
}  // namespace msa::train
