#include "train/data/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <map>
#include <numbers>
#include <regex>
#include <set>
#include <thread>

#include "tiny_sets.h"
#include "train/data/batch_queue.h"

namespace msa::train {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kSmall = "samples = 12\nmax_document_tokens = 64\npool_tokens = 2000\nheld_out = 0.2\n";

/// Everything in a batch as text.
struct Readable {
  std::vector<std::string> documents;
  std::vector<std::string> samples;
  std::vector<std::set<int>> positives, ignored;
};

std::string id_of(const std::string& document) {
  std::smatch match;
  EXPECT_TRUE(std::regex_search(document, match, std::regex(R"(^<\|im_start\|>\[(\d+)\])"))) << document;
  return match[1];
}

/// The id as it stands in prompts.
std::string tag(const std::string& id) { return std::string("[").append(id).append("]"); }

class BatcherTest : public ::testing::Test {
 protected:
  BatcherTest() { sets_.write_numbered_set("one", 200); }

  Batcher& use(const std::string& data, uint64_t seed = 1) {
    recipe_ = sets_.recipe(data);
    data_ = sets_.load(recipe_);
    batcher_.emplace(recipe_, data_, *sets_.tokenizer, *sets_.prompts, seed);
    return *batcher_;
  }

  template <class T>
  static std::vector<T> slice(const std::vector<T>& all, const std::vector<int64_t>& starts, int64_t i) {
    return {all.begin() + starts[static_cast<size_t>(i)], all.begin() + starts[static_cast<size_t>(i) + 1]};
  }

  Readable read(const Batch& batch) const {
    Readable out;
    for (int64_t j = 0; j < batch.documents(); ++j) {
      out.documents.push_back(sets_.decode(slice(batch.tokens, batch.starts, j + 1)));
    }
    for (int64_t i = 0; i < batch.samples(); ++i) {
      out.samples.push_back(sets_.decode(slice(batch.sample_tokens, batch.sample_starts, i)));
      const auto positives = slice(batch.positives, batch.positive_starts, i);
      const auto ignored = slice(batch.ignored, batch.ignored_starts, i);
      out.positives.emplace_back(positives.begin(), positives.end());
      out.ignored.emplace_back(ignored.begin(), ignored.end());
    }
    return out;
  }

  /// Index of the document of the pool with this text, or -1.
  static int find(const Readable& batch, const std::string& text) {
    for (size_t j = 0; j < batch.documents.size(); ++j) {
      if (batch.documents[j].find(text) != std::string::npos) return static_cast<int>(j);
    }
    return -1;
  }

  TinySets sets_;
  DataRecipe recipe_;
  TrainingData data_;
  std::optional<Batcher> batcher_;
};

void expect_equal(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.starts, b.starts);
  EXPECT_EQ(a.n_trained, b.n_trained);
  EXPECT_EQ(a.sample_tokens, b.sample_tokens);
  EXPECT_EQ(a.sample_starts, b.sample_starts);
  EXPECT_EQ(a.routed, b.routed);
  EXPECT_EQ(a.predicted, b.predicted);
  EXPECT_EQ(a.positives, b.positives);
  EXPECT_EQ(a.ignored, b.ignored);
  EXPECT_EQ(a.teacher_scores, b.teacher_scores);
  EXPECT_EQ(a.rerank_starts, b.rerank_starts);
  EXPECT_EQ(a.top_k_documents, b.top_k_documents);
}

void expect_consistent(const Batch& b) {
  const auto samples = static_cast<size_t>(b.samples());
  ASSERT_EQ(b.kinds.size(), samples);
  for (const auto* starts : {&b.sample_starts, &b.positive_starts, &b.ignored_starts, &b.teacher_starts}) {
    ASSERT_EQ(starts->size(), samples + 1);
    EXPECT_TRUE(std::is_sorted(starts->begin(), starts->end()));
    EXPECT_EQ(starts->front(), 0);
  }
  EXPECT_EQ(b.starts.back(), static_cast<int64_t>(b.tokens.size()));
  EXPECT_EQ(b.sample_starts.back(), static_cast<int64_t>(b.sample_tokens.size()));
  EXPECT_EQ(b.routed.size(), b.sample_tokens.size());
  EXPECT_EQ(b.predicted.size(), b.sample_tokens.size());
  EXPECT_EQ(b.positive_starts.back(), static_cast<int64_t>(b.positives.size()));
  EXPECT_EQ(b.ignored_starts.back(), static_cast<int64_t>(b.ignored.size()));
  EXPECT_EQ(b.teacher_starts.back(), static_cast<int64_t>(b.teacher_documents.size()));
  EXPECT_LE(b.n_trained, b.documents());
  for (const auto* list : {&b.positives, &b.ignored, &b.teacher_documents}) {
    for (const int32_t j : *list) EXPECT_TRUE(j >= 0 && j < b.documents());
  }
  for (const int32_t j : b.positives) EXPECT_LT(j, b.n_trained);
  for (size_t i = 0; i < samples; ++i) EXPECT_EQ(b.predicted[static_cast<size_t>(b.sample_starts[i])], 0);
}

TEST_F(BatcherTest, GoldDocumentsAreInThePoolUnderTheirIds) {
  const Batch batch = use(std::string(kSmall) + "[[data.sets]]\nfolder = \"one\"\n").make(3);
  expect_consistent(batch);
  EXPECT_EQ(batch.samples(), 12);
  EXPECT_EQ(batch.n_trained, batch.documents());
  EXPECT_LE(batch.tokens.size(), 2000u);
  EXPECT_GE(batch.tokens.size(), 1900u);
  EXPECT_EQ(slice(batch.tokens, batch.starts, 0), sets_.prompts->head().tokens);
  const Readable text = read(batch);
  std::set<std::string> ids;
  for (const std::string& document : text.documents) {
    const std::string id = id_of(document);
    EXPECT_TRUE(ids.insert(id).second);
    EXPECT_LE(id.size(), 4u);
    EXPECT_TRUE(document.ends_with(tag(id) + "<|im_end|>"));
  }
  for (size_t i = 0; i < text.samples.size(); ++i) {
    std::smatch match;
    ASSERT_TRUE(std::regex_search(text.samples[i], match, std::regex(R"(What does one (\d+)[ab] say)")));
    const int gold = find(text, "text " + match[1].str() + " says");
    ASSERT_GE(gold, 0);
    EXPECT_THAT(text.positives[i], ElementsAre(gold));
    const std::string id = id_of(text.documents[static_cast<size_t>(gold)]);
    EXPECT_THAT(text.samples[i], HasSubstr("<|im_start|>" + tag(id) + "<file_sep>"));
    if (batch.kinds[i] == SampleKind::kAnswer) {
      EXPECT_THAT(text.samples[i], HasSubstr("says ans" + match[1].str() + "\n<file_sep><issue_closed>"));
      EXPECT_TRUE(text.samples[i].ends_with("Answer: ans" + match[1].str() + "<|im_end|>"));
    } else {
      EXPECT_TRUE(text.samples[i].ends_with(tag(id) + "<file_sep><|im_end|>"));
    }
  }
}

TEST_F(BatcherTest, DependsOnSeedAndStepAlone) {
  const std::string data =
      std::string(kSmall) +
      "language_share = 0.2\nreconstruct_share = 0.2\nextra_tokens = 300\n[[data.sets]]\nfolder = \"one\"\n";
  const Batch first = use(data).make(5);
  const Batch other_step = batcher_->make(6);
  expect_equal(batcher_->make(5), first);
  expect_equal(use(data).make(5), first);
  EXPECT_NE(other_step.sample_tokens, first.sample_tokens);
  EXPECT_NE(use(data, 2).make(5).sample_tokens, first.sample_tokens);
}

TEST_F(BatcherTest, HeldOutQuestionsNeverReachABatch) {
  use(std::string(kSmall) + "[[data.sets]]\nfolder = \"one\"\n");
  std::set<std::string> seen;
  for (int64_t step = 0; step < 300; ++step) {
    for (const std::string& sample : read(batcher_->make(step)).samples) {
      std::smatch match;
      ASSERT_TRUE(std::regex_search(sample, match, std::regex(R"(What does one \d+[ab] say\?)")));
      seen.insert(match[0]);
    }
  }
  const TrainingSet& set = data_.sets[0];
  const auto& questions = data_.datasets[0].questions;
  ASSERT_FALSE(set.split.held_out.empty());
  for (const int32_t q : set.split.held_out) EXPECT_FALSE(seen.contains(questions[static_cast<size_t>(q)].text));
  EXPECT_EQ(seen.size(), set.split.train.size());
}

TEST_F(BatcherTest, TypesAndKinds) {
  use(std::string(kSmall) +
      "[[data.sets]]\nfolder = \"one\"\ntypes = [\"a\"]\nanswer = 0\n"
      "[[data.sets]]\nfolder = \"one\"\ntypes = [\"b\"]\nreading_only = true\n");
  EXPECT_EQ(data_.datasets.size(), 1u);
  for (int64_t step = 0; step < 20; ++step) {
    const Batch batch = batcher_->make(step);
    const Readable text = read(batch);
    for (size_t i = 0; i < text.samples.size(); ++i) {
      const bool reads = batch.kinds[i] == SampleKind::kAnswer;
      EXPECT_EQ(reads, std::regex_search(text.samples[i], std::regex(R"(\d+b say)")));
      EXPECT_EQ(text.positives[i].empty(), reads);
    }
  }
}

TEST_F(BatcherTest, SharesOfSamples) {
  use("language_share = 0.25\nreconstruct_share = 0.25\nreconstruct_tokens = 8\n" + std::string(kSmall) +
      "[[data.sets]]\nfolder = \"one\"\nretrieve = 3\n");
  std::map<SampleKind, int> count;
  for (int64_t step = 0; step < 100; ++step) {
    const Batch batch = batcher_->make(step);
    EXPECT_EQ(batch.samples(), 12);
    const Readable text = read(batch);
    for (size_t i = 0; i < text.samples.size(); ++i) {
      ++count[batch.kinds[i]];
      if (batch.kinds[i] == SampleKind::kLanguage) {
        EXPECT_TRUE(text.samples[i].starts_with("Article"));
        EXPECT_THAT(text.positives[i], IsEmpty());
      }
      if (batch.kinds[i] != SampleKind::kReconstruct) continue;
      ASSERT_EQ(text.positives[i].size(), 1u);
      const std::string id = id_of(text.documents[static_cast<size_t>(*text.positives[i].begin())]);
      EXPECT_TRUE(text.samples[i].starts_with("\nAnswer.\n" + tag(id) + "\n")) << text.samples[i];
      EXPECT_TRUE(text.samples[i].ends_with("<|im_start|>Article ")) << text.samples[i];
    }
  }
  EXPECT_EQ(count[SampleKind::kLanguage], 300);
  EXPECT_EQ(count[SampleKind::kReconstruct], 300);
  EXPECT_NEAR(count[SampleKind::kRetrieve], 450, 60);
}

TEST_F(BatcherTest, ChainsGiveOneSampleAHop) {
  sets_.write_set("chain", {{"a", "", "first"}, {"b", "", "second"}, {"c", "", "third"}, {"z", "", "noise"}},
                  {{"q", "Where to?", {"home"}, {"c", "b", "a"}, {"a", "b", "c"}}});
  use("samples = 1\nmax_document_tokens = 64\npool_tokens = 2000\nheld_out = 0\n[[data.sets]]\nfolder = \"chain\"\n");
  std::set<std::string> kinds;
  for (int64_t step = 0; step < 40; ++step) {
    const Batch batch = batcher_->make(step);
    const Readable text = read(batch);
    const std::string& sample = text.samples[0];
    const auto id = [&](const char* what) { return tag(id_of(text.documents[static_cast<size_t>(find(text, what))])); };
    const std::string query = "\nAnswer.\nWhere to?\nReturn documents.\n<|im_end|>\n<|im_start|>";
    const std::string hop1 = id("first") + "<file_sep>" + id("first") + ". first\n<file_sep>";
    const std::string hop2 = id("second") + "<file_sep>" + id("second") + ". second\n<file_sep>";
    const std::string hop3 = id("third") + "<file_sep>" + id("third") + ". third\n<file_sep>";
    if (batch.kinds[0] == SampleKind::kAnswer) {
      EXPECT_TRUE(sample.starts_with(query + hop1 + hop2 + hop3 + "<issue_closed>")) << sample;
      EXPECT_EQ(text.positives[0].size(), 3u);
      kinds.insert("answer");
    } else if (sample == query + id("first") + "<file_sep><|im_end|>") {
      EXPECT_THAT(text.positives[0], ElementsAre(find(text, "first")));
      kinds.insert("hop 1");
    } else if (sample == query + hop1 + id("second") + "<file_sep><|im_end|>") {
      EXPECT_THAT(text.positives[0], ElementsAre(find(text, "second")));
      EXPECT_THAT(text.ignored[0], ElementsAre(::testing::AnyOf(find(text, "first"), find(text, "third")),
                                               ::testing::AnyOf(find(text, "first"), find(text, "third"))));
      kinds.insert("hop 2");
    } else {
      EXPECT_EQ(sample, query + hop1 + hop2 + id("third") + "<file_sep><|im_end|>");
      kinds.insert("hop 3");
    }
  }
  EXPECT_EQ(kinds.size(), 4u);
}

TEST_F(BatcherTest, UnorderedGoldDocumentsAreCitedInRandomOrder) {
  sets_.write_set("many", {{"a", "", "first"}, {"b", "", "second"}}, {{"q", "Which?", {"x"}, {"a", "b"}}});
  use("samples = 1\nmax_document_tokens = 64\npool_tokens = 2000\nheld_out = 0\n"
      "[[data.sets]]\nfolder = \"many\"\nanswer = 0\n");
  std::set<bool> orders;
  for (int64_t step = 0; step < 20; ++step) {
    const Readable text = read(batcher_->make(step));
    EXPECT_EQ(text.positives[0].size(), 2u);
    const std::string a = tag(id_of(text.documents[static_cast<size_t>(find(text, "first"))])) + "<file_sep>";
    const std::string b = tag(id_of(text.documents[static_cast<size_t>(find(text, "second"))])) + "<file_sep>";
    orders.insert(text.samples[0].find(a) < text.samples[0].find(b));
  }
  EXPECT_EQ(orders.size(), 2u);
}

TEST_F(BatcherTest, WhatMayBeRightIsIgnored) {
  sets_.write_set("other",
                  {{"x", "Another title", "one text 7  says ans7"}, {"y", "", "(ans7) is here"}, {"z", "", "no"}}, {});
  sets_.write("one/possible_positives.tsv", "query-id\tcorpus-id\tscore\nq7a\td100\t1\n");
  const std::string data =
      "samples = 400\nmax_document_tokens = 64\npool_tokens = 40000\nheld_out = 0\ncorpus = \"other\"\n"
      "corpus_weight = 9\n[[data.sets]]\nfolder = \"one\"\nanswer = 0\n";
  for (const bool answers : {false, true}) {
    const Readable text = read(use(data + (answers ? "ignore_answers = true\n" : "")).make(0));
    const auto sample = std::find_if(text.samples.begin(), text.samples.end(),
                                     [](const std::string& s) { return s.find("one 7a say") != std::string::npos; });
    ASSERT_NE(sample, text.samples.end());
    const auto& ignored = text.ignored[static_cast<size_t>(sample - text.samples.begin())];
    EXPECT_THAT(ignored, Contains(find(text, "Another title")));
    EXPECT_THAT(ignored, Contains(find(text, "text 100 says")));
    EXPECT_THAT(ignored, Not(Contains(find(text, "one text 7 says"))));
    EXPECT_EQ(ignored.contains(find(text, "(ans7)")), answers);
    if (!answers) {
      EXPECT_EQ(ignored.size(), 2u);
    }
  }
}

TEST_F(BatcherTest, HardNegativesNeighboursAndTeacher) {
  std::string found, scores = "query-id\tcorpus-id\tscore\n";
  for (int i = 0; i < 200; ++i) {
    for (const std::string which : {"a", "b"}) {
      const std::string q = "q" + std::to_string(i) + which;
      found += q + "\td" + std::to_string(i) + "\n" + q + "\td" + std::to_string((i + 100) % 200) + "\n";
      scores += q + "\td" + std::to_string(i) + "\t9\n" + q + "\td" + std::to_string((i + 100) % 200) + "\t4\n";
    }
  }
  sets_.write("hard.tsv", found);
  sets_.write("bm25.tsv", scores);
  use("samples = 4\nmax_document_tokens = 64\npool_tokens = 2000\nheld_out = 0\nneighbours = 8\n[[data.sets]]\n"
      "folder = \"one\"\nhard_negatives = \"hard.tsv\"\nteacher = \"bm25.tsv\"\n");
  for (int64_t step = 0; step < 20; ++step) {
    const Batch batch = batcher_->make(step);
    const Readable text = read(batch);
    for (size_t i = 0; i < text.samples.size(); ++i) {
      std::smatch match;
      ASSERT_TRUE(std::regex_search(text.samples[i], match, std::regex(R"(one (\d+)[ab] say)")));
      const int number = std::stoi(match[1]);
      const int hard = find(text, "text " + std::to_string((number + 100) % 200) + " says");
      ASSERT_GE(hard, 0);
      EXPECT_FALSE(text.positives[i].contains(hard) || text.ignored[i].contains(hard));
      int neighbours = 0;
      for (int k = number / 4 * 4; k < number / 4 * 4 + 4; ++k)
        neighbours += find(text, "text " + std::to_string(k) + " ") >= 0;
      EXPECT_GE(neighbours, 2);
      const auto documents = slice(batch.teacher_documents, batch.teacher_starts, static_cast<int64_t>(i));
      const auto values = slice(batch.teacher_scores, batch.teacher_starts, static_cast<int64_t>(i));
      if (batch.kinds[i] == SampleKind::kRetrieve) {
        EXPECT_THAT(documents, ElementsAre(*text.positives[i].begin(), hard));
        EXPECT_THAT(values, ElementsAre(9.0f, 4.0f));
      } else {
        EXPECT_THAT(documents, IsEmpty());
      }
    }
  }
}

TEST_F(BatcherTest, VectorsOfATeacherScoreTheWholePool) {
  // Document i and its questions lie on a circle at i / 200 of a turn.
  const auto circle = [](int64_t n, int64_t per_point) {
    std::vector<uint16_t> rows;
    for (int64_t i = 0; i < n; ++i) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(i / per_point) / 200;
      rows.push_back(float_to_half(static_cast<float>(std::cos(angle))));
      rows.push_back(float_to_half(static_cast<float>(std::sin(angle))));
    }
    return rows;
  };
  std::vector<uint16_t> documents = circle(200, 1), questions = circle(400, 2);
  write_safetensors(sets_.path("v.safetensors"), {{"documents", Tensor(documents.data(), DType::kF16, {200, 2})},
                                                  {"questions", Tensor(questions.data(), DType::kF16, {400, 2})}});
  use("samples = 8\nmax_document_tokens = 64\npool_tokens = 2000\nheld_out = 0\n[[data.sets]]\n"
      "folder = \"one\"\nteacher_vectors = \"v.safetensors\"\n");
  for (int64_t step = 0; step < 10; ++step) {
    const Batch batch = batcher_->make(step);
    const Readable text = read(batch);
    std::vector<int> points;  // of the pool's documents
    for (const std::string& document : text.documents) {
      std::smatch match;
      ASSERT_TRUE(std::regex_search(document, match, std::regex(R"(text (\d+) says)")));
      points.push_back(std::stoi(match[1]));
    }
    for (size_t i = 0; i < text.samples.size(); ++i) {
      const auto entries = slice(batch.teacher_documents, batch.teacher_starts, static_cast<int64_t>(i));
      const auto scores = slice(batch.teacher_scores, batch.teacher_starts, static_cast<int64_t>(i));
      if (batch.kinds[i] != SampleKind::kRetrieve) {
        EXPECT_THAT(entries, IsEmpty());
        continue;
      }
      std::smatch match;
      ASSERT_TRUE(std::regex_search(text.samples[i], match, std::regex(R"(one (\d+)[ab] say)")));
      ASSERT_EQ(entries.size(), points.size());
      for (size_t j = 0; j < entries.size(); ++j) {
        const int steps = std::stoi(match[1]) - points[static_cast<size_t>(entries[j])];
        EXPECT_NEAR(scores[j], std::cos(2 * std::numbers::pi * steps / 200), 2e-3);
      }
    }
  }
}

TEST_F(BatcherTest, ALexicalTeacherIsAddedToTheDenseOne) {
  const std::vector<std::string> texts = {"red apples grow here", "green apples fall", "a red house by the sea",
                                          "ships sail the sea", "nothing of that"};
  std::vector<TinyDocument> documents;
  for (size_t i = 0; i < texts.size(); ++i) documents.push_back({"d" + std::to_string(i), "", texts[i]});
  const std::vector<std::string> asked = {"Which apple is red?", "sea ship", "quite unknown"};
  std::vector<TinyQuestion> questions;
  for (size_t i = 0; i < asked.size(); ++i) questions.push_back({"q" + std::to_string(i), asked[i], {}, {"d0"}});
  sets_.write_set("words", documents, questions);
  std::vector<uint16_t> rows(10, float_to_half(0.5f));
  write_safetensors(sets_.path("w.safetensors"), {{"documents", Tensor(rows.data(), DType::kF16, {5, 2})},
                                                  {"questions", Tensor(rows.data(), DType::kF16, {3, 2})}});
  const std::string data =
      "samples = 3\nmax_document_tokens = 64\npool_tokens = 2000\nheld_out = 0\ncorpus = \"one\"\n[[data.sets]]\n"
      "folder = \"words\"\nteacher_vectors = \"w.safetensors\"\nteacher_lexical = ";
  const Bm25Index index(5, [&](int64_t i) { return texts[static_cast<size_t>(i)]; });
  Bm25Scratch scratch;
  for (const float weight : {0.0f, 0.4f}) {
    const Batch batch = use(data + std::to_string(weight) + "\n").make(0);
    const Readable text = read(batch);
    ASSERT_EQ(text.samples.size(), 3u);
    for (size_t i = 0; i < text.samples.size(); ++i) {
      const auto question = std::find_if(asked.begin(), asked.end(), [&](const std::string& q) {
        return text.samples[i].find(q) != std::string::npos;
      });
      ASSERT_NE(question, asked.end());
      std::map<int, float> expected;
      const auto hits = index.top(*question, 5, scratch);
      for (const Bm25Hit& hit : hits) {
        expected[find(text, texts[static_cast<size_t>(hit.document)])] = hit.score / hits[0].score;
      }
      EXPECT_EQ(expected.size(), *question == asked[0] ? 3u : *question == asked[1] ? 2u : 0u);
      const auto entries = slice(batch.teacher_documents, batch.teacher_starts, static_cast<int64_t>(i));
      const auto scores = slice(batch.teacher_scores, batch.teacher_starts, static_cast<int64_t>(i));
      ASSERT_EQ(entries.size(), 5u) << "documents of the corpus have no vectors";
      for (size_t j = 0; j < entries.size(); ++j) {
        EXPECT_NEAR(scores[j], 0.5f + weight * expected[static_cast<int>(entries[j])], 1e-3);
      }
    }
  }
  EXPECT_THAT(error_of([&] { use("[[data.sets]]\nfolder = \"words\"\nteacher_lexical = 1\n"); }),
              HasSubstr("teacher_vectors"));
}

TEST_F(BatcherTest, PoolAndTopKFollowTheirSchedules) {
  use("samples = 4\nmax_document_tokens = 64\npool_tokens = [{from = 0, tokens = 800}, {from = 10, tokens = 4000}]\n"
      "extra_tokens = [{from = 0, tokens = 0}, {from = 5, tokens = 1000}]\n"
      "top_k = [{from = 0, values = [16]}, {from = 10, values = [1, 2, 4], shares = [1, 0, 1]}]\n"
      "[[data.sets]]\nfolder = \"one\"\n");
  const Batch small = batcher_->make(0);
  EXPECT_LE(small.tokens.size(), 800u);
  EXPECT_EQ(small.top_k_documents, 16);
  const Batch extra = batcher_->make(9);
  EXPECT_LE(extra.tokens.size(), 1800u);
  EXPECT_GT(extra.tokens.size(), 1700u);
  EXPECT_LE(extra.starts[static_cast<size_t>(extra.n_trained) + 1], 800);
  EXPECT_GT(batcher_->make(10).tokens.size(), 4500u);
  std::set<int> top_k;
  for (int64_t step = 10; step < 40; ++step) top_k.insert(batcher_->make(step).top_k_documents);
  EXPECT_THAT(top_k, ElementsAre(1, 4));
}

TEST_F(BatcherTest, SmallPoolsHoldManyQuestionsAboutFewDocuments) {
  const Batch batch = use("samples = 30\nmax_document_tokens = 64\npool_tokens = 1200\nheld_out = 0\n"
                          "[[data.sets]]\nfolder = \"one\"\n")
                          .make(0);
  expect_consistent(batch);
  EXPECT_LE(batch.tokens.size(), 1200u);
  EXPECT_LT(batch.documents(), 26);
  EXPECT_GE(batch.samples(), 20);
}

TEST_F(BatcherTest, LongTextsAreCutButNotTheirAnswers) {
  const std::string filler(300, 'x');
  sets_.write_set("long", {{"a", "", "early " + filler}, {"b", "", filler + " late"}},
                  {{"q", "A?", {"early"}, {"a"}}, {"r", "B?", {"late"}, {"b"}}});
  use("samples = 2\nmax_sample_tokens = 200\nmax_document_tokens = 1000\npool_tokens = 4000\nheld_out = 0\n"
      "[[data.sets]]\nfolder = \"long\"\nretrieve = 0\n");
  const Batch batch = batcher_->make(0);
  ASSERT_EQ(batch.samples(), 1);
  EXPECT_EQ(batch.sample_tokens.size(), 200u);
  EXPECT_THAT(read(batch).samples[0], HasSubstr("early xxx"));
}

TEST_F(BatcherTest, DistractorsAreFetchedBesideTheGoldDocument) {
  std::string hard;
  for (int i = 0; i < 200; ++i) {
    for (const std::string which : {"a", "b"}) {
      const std::string q = "q" + std::to_string(i) + which;
      hard += q + "\td" + std::to_string(i) + "\n" + q + "\td" + std::to_string((i + 100) % 200) + "\n";
    }
  }
  sets_.write("hard.tsv", hard);
  use("samples = 6\nmax_document_tokens = 64\npool_tokens = 4000\nheld_out = 0\n"
      "distractors = [{from = 0, values = [0, 2], shares = [1, 3]}]\n"
      "[[data.sets]]\nfolder = \"one\"\nretrieve = 0\nhard_negatives = \"hard.tsv\"\n");
  std::map<size_t, int> counts;
  std::set<size_t> places;  // of the gold document among those cited
  for (int64_t step = 0; step < 30; ++step) {
    const Batch batch = batcher_->make(step);
    expect_consistent(batch);
    const Readable text = read(batch);
    for (size_t i = 0; i < text.samples.size(); ++i) {
      const std::string& sample = text.samples[i];
      std::smatch match;
      ASSERT_TRUE(std::regex_search(sample, match, std::regex(R"(one (\d+)[ab] say)")));
      const int number = std::stoi(match[1]);
      ASSERT_TRUE(std::regex_search(sample, match, std::regex(R"(<\|im_start\|>((?:\[\d+\]<file_sep>)+))")));
      const std::string ids = match[1];
      std::string expected = ids;  // all ids, then all texts in their order
      std::vector<int> cited;      // documents of the pool
      const std::regex one(R"(\[(\d+)\]<file_sep>)");
      for (auto it = std::sregex_iterator(ids.begin(), ids.end(), one); it != std::sregex_iterator(); ++it) {
        const int entry = find(text, "<|im_start|>" + tag((*it)[1]));
        ASSERT_GE(entry, 0);
        cited.push_back(entry);
        const std::string& document = text.documents[static_cast<size_t>(entry)];
        const size_t begin = document.find(". ") + 2, end = document.rfind(tag((*it)[1]));
        expected += tag((*it)[1]) + ". " + document.substr(begin, end - begin) + "\n<file_sep>";
      }
      EXPECT_THAT(sample, HasSubstr(expected + "<issue_closed>"));
      ++counts[cited.size()];
      const int gold = find(text, "text " + std::to_string(number) + " says");
      const auto place = std::find(cited.begin(), cited.end(), gold);
      ASSERT_NE(place, cited.end());
      EXPECT_THAT(text.positives[i], ElementsAre(gold));
      if (cited.size() == 1) continue;
      places.insert(static_cast<size_t>(place - cited.begin()));
      EXPECT_THAT(cited, Contains(find(text, "text " + std::to_string((number + 100) % 200) + " says")));
      EXPECT_EQ(std::set<int>(cited.begin(), cited.end()).size(), 3u);
      for (const int d : cited) EXPECT_EQ(text.ignored[i].contains(d), d != gold);
    }
  }
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_NEAR(counts[3], 135, 25);
  EXPECT_EQ(places.size(), 3u);
}

TEST_F(BatcherTest, SomeAnswersAreReadWithoutMemory) {
  use("samples = 8\nmax_document_tokens = 64\npool_tokens = 4000\nheld_out = 0\nread_share = 0.25\n"
      "[[data.sets]]\nfolder = \"one\"\n");
  std::map<SampleKind, int> counts;
  for (int64_t step = 0; step < 50; ++step) {
    const Batch batch = batcher_->make(step);
    expect_consistent(batch);
    const Readable text = read(batch);
    for (size_t i = 0; i < batch.kinds.size(); ++i) {
      ++counts[batch.kinds[i]];
      const auto begin = batch.routed.begin() + batch.sample_starts[i];
      const auto end = batch.routed.begin() + batch.sample_starts[i + 1];
      const bool is_read = batch.kinds[i] == SampleKind::kRead;
      EXPECT_EQ(std::find(begin, end, 1) == end, is_read);
      EXPECT_EQ(text.positives[i].empty(), is_read);
      if (is_read) EXPECT_THAT(text.samples[i], HasSubstr("<issue_closed>"));
    }
  }
  EXPECT_NEAR(counts[SampleKind::kRetrieve], 200, 45);
  EXPECT_NEAR(counts[SampleKind::kRead], 50, 25);
}

TEST_F(BatcherTest, SomeAnsweredQuestionsAreInSearchStyle) {
  use("samples = 8\nmax_document_tokens = 64\npool_tokens = 4000\nheld_out = 0\n"
      "[[data.sets]]\nfolder = \"one\"\nretrieve = 0\nanswer_search_style = 0.5\n");
  int restyled = 0;
  for (int64_t step = 0; step < 50; ++step) {
    for (const std::string& sample : read(batcher_->make(step)).samples)
      restyled += sample.find('?') == std::string::npos;
  }
  EXPECT_NEAR(restyled, 200, 60);
}

TEST_F(BatcherTest, CandidatesAreJudgedOneRightAmongWrongOnes) {
  use("samples = 3\nmax_document_tokens = 64\npool_tokens = 2000\nheld_out = 0.2\nrerank_questions = 6\n"
      "rerank_negatives = 3\n[[data.sets]]\nfolder = \"one\"\n[[data.sets]]\nfolder = \"one\"\nreading_only = true\n");
  const Batch batch = batcher_->make(2);
  expect_consistent(batch);
  const Readable text = read(batch);
  ASSERT_EQ(batch.rerank_starts.size(), 7u);
  EXPECT_EQ(batch.rerank_starts.front(), 3);
  EXPECT_EQ(batch.rerank_starts.back(), batch.samples());
  for (size_t g = 0; g < 6; ++g) {
    EXPECT_EQ(batch.rerank_starts[g + 1] - batch.rerank_starts[g], 4);
    std::set<std::string> documents;
    for (auto i = static_cast<size_t>(batch.rerank_starts[g]); i < static_cast<size_t>(batch.rerank_starts[g + 1]);
         ++i) {
      EXPECT_EQ(batch.kinds[i], SampleKind::kRerank);
      EXPECT_THAT(text.positives[i], IsEmpty());
      std::smatch asked, says;
      const std::string& sample = text.samples[i];
      ASSERT_TRUE(std::regex_search(sample, asked, std::regex(R"(one (\d+)[ab] say)"))) << sample;
      ASSERT_TRUE(std::regex_search(sample, says, std::regex(R"(text (\d+) says)"))) << sample;
      EXPECT_EQ(asked[1] == says[1], i == static_cast<size_t>(batch.rerank_starts[g])) << sample;
      EXPECT_TRUE(documents.insert(says[1]).second);
    }
  }
}

TEST_F(BatcherTest, JudgedCandidatesOfALaterHopStandBehindTheEarlierDocument) {
  sets_.write_set("chain", {{"a", "", "alpha text"}, {"b", "", "beta text"}, {"c", "", "gamma text"}},
                  {{"q", "Where?", {"beta"}, {"a", "b"}, {"a", "b"}}});
  use("samples = 1\nmax_document_tokens = 64\npool_tokens = 500\nheld_out = 0\nrerank_questions = 1\n"
      "[[data.sets]]\nfolder = \"chain\"\n");
  std::set<std::string> seen;
  for (int64_t step = 0; step < 30; ++step) {
    const Batch batch = batcher_->make(step);
    const Readable text = read(batch);
    for (size_t i = 1; i < text.samples.size(); ++i) seen.insert(text.samples[i]);
  }
  EXPECT_EQ(seen.size(), 4u);
  for (const char* documents : {"Text: alpha text\nDoes", "Text: gamma text\nDoes",
                                "Text: alpha text\nText: beta text\n", "Text: alpha text\nText: gamma text\n"}) {
    EXPECT_THAT(seen, Contains(HasSubstr(documents)));
  }
}

TEST_F(BatcherTest, OfGoldDocumentsWithoutOrderOneMayStandBeforeTheCandidates) {
  sets_.write_set("pair", {{"a", "", "alpha text"}, {"b", "", "beta text"}, {"c", "", "gamma text"}},
                  {{"q", "Which?", {"beta"}, {"a", "b"}}});
  use("samples = 1\nmax_document_tokens = 64\npool_tokens = 500\nheld_out = 0\nrerank_questions = 1\n"
      "[[data.sets]]\nfolder = \"pair\"\n");
  std::set<std::string> right;
  for (int64_t step = 0; step < 60; ++step) {
    const Batch batch = batcher_->make(step);
    right.insert(read(batch).samples[static_cast<size_t>(batch.rerank_starts.front())]);
  }
  EXPECT_EQ(right.size(), 4u);
  for (const char* documents : {"\nText: alpha text\nDoes", "\nText: beta text\nDoes",
                                "Text: alpha text\nText: beta text\n", "Text: beta text\nText: alpha text\n"}) {
    EXPECT_THAT(right, Contains(HasSubstr(documents)));
  }
}

TEST_F(BatcherTest, DistractorsGiveWayToTheGoldText) {
  const std::string filler(150, 'x');
  sets_.write_set("long", {{"a", "", filler + " answer"}, {"b", "", "other " + filler}, {"c", "", "more " + filler}},
                  {{"q", "A?", {"answer"}, {"a"}}});
  const std::string data =
      "samples = 1\nmax_document_tokens = 1000\npool_tokens = 4000\nheld_out = 0\ndistractors = 2\n"
      "[[data.sets]]\nfolder = \"long\"\nretrieve = 0\n";
  const auto texts_of = [&](const std::string& limit) {
    const Batch batch = use(limit + data).make(0);
    const std::string sample = read(batch).samples[0];
    EXPECT_THAT(sample, HasSubstr(filler + " answer\n"));
    int texts = 0;
    for (size_t at = 0; (at = sample.find(filler, at)) != std::string::npos; ++at) ++texts;
    return texts;
  };
  EXPECT_EQ(texts_of("max_sample_tokens = 2000\n"), 3);
  EXPECT_EQ(texts_of("max_sample_tokens = 450\n"), 2);
  EXPECT_EQ(texts_of("max_sample_tokens = 300\n"), 1);
}

TEST_F(BatcherTest, WhatCannotBeMadeIsAnError) {
  use("samples = 4\nmax_sample_tokens = 16\nmax_document_tokens = 64\n[[data.sets]]\nfolder = \"one\"\n");
  EXPECT_THAT(error_of([&] { batcher_->make(0); }), HasSubstr("no question fits"));
  use("samples = 4\nid_digits = 1\nmax_document_tokens = 64\n[[data.sets]]\nfolder = \"one\"\n");
  EXPECT_THAT(error_of([&] { batcher_->make(0); }),
              AllOf(HasSubstr("more documents than the 9 ids"), HasSubstr("id_digits")));
}

TEST_F(BatcherTest, QueueGivesTheBatchesInOrder) {
  use(std::string(kSmall) + "[[data.sets]]\nfolder = \"one\"\n");
  BatchQueue queue([&](int64_t step) { return batcher_->make(step); }, 7, 3, 5);
  for (int64_t step = 7; step < 40; ++step) expect_equal(queue.next(), batcher_->make(step));
  EXPECT_GE(queue.wait_seconds(), 0);
  queue.stop();
  queue.stop();
}

TEST(BatchQueueTest, SlowBatchesAreWaitedForAndErrorsPassedOn) {
  std::atomic<int64_t> highest{0};
  BatchQueue queue(
      [&](int64_t step) {
        highest = std::max<int64_t>(highest, step);
        std::this_thread::sleep_for(std::chrono::milliseconds(step % 2 == 0 ? 20 : 1));
        if (step == 5) throw Error("broken", "step 5");
        Batch batch;
        batch.n_trained = step;
        return batch;
      },
      0, 4, 4);
  for (int64_t step = 0; step < 5; ++step) EXPECT_EQ(queue.next().n_trained, step);
  EXPECT_THAT(error_of([&] { queue.next(); }), HasSubstr("broken"));
  EXPECT_EQ(queue.next().n_trained, 6);
  EXPECT_GT(queue.wait_seconds(), 0.001);
  EXPECT_LE(highest, 10);  // no further ahead than asked for
}

}  // namespace
}  // namespace msa::train
