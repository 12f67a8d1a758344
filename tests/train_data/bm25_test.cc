#include "train/data/bm25.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "train/data/words.h"

namespace msa::train {
namespace {

#include "bm25_golden.inc"

Bm25Index index_of(const std::vector<std::string>& corpus, Bm25Options options = {}) {
  return {static_cast<int64_t>(corpus.size()), [&](int64_t i) { return corpus[static_cast<size_t>(i)]; }, options};
}

void expect_hits(const std::vector<Bm25Hit>& hits, const std::vector<Bm25Hit>& expected) {
  ASSERT_EQ(hits.size(), expected.size());
  for (size_t i = 0; i < hits.size(); ++i) {
    EXPECT_EQ(hits[i].document, expected[i].document) << "hit " << i;
    EXPECT_NEAR(hits[i].score, expected[i].score, 2e-6 * std::abs(expected[i].score)) << "hit " << i;
  }
}

TEST(Bm25, AgreesWithBm25s) {
  for (const bool stem : {true, false}) {
    const Bm25Index index = index_of(kCorpus, {.stem = stem});
    Bm25Scratch scratch;
    for (size_t q = 0; q < kQueries.size(); ++q) {
      SCOPED_TRACE(kQueries[q] + (stem ? ", stemmed" : ", plain"));
      expect_hits(index.top(kQueries[q], 5, scratch), (stem ? kStemmed : kPlain)[q]);
    }
  }
}

std::vector<std::string> split(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

/// The formula, document by document.
std::vector<Bm25Hit> brute_force(const std::vector<std::string>& corpus, const std::string& query, size_t k) {
  std::vector<std::map<std::string, int>> counts(corpus.size());
  std::vector<double> lengths(corpus.size());
  std::map<std::string, int> holders;
  double mean = 0;
  for (size_t i = 0; i < corpus.size(); ++i) {
    for (const std::string& word : split(corpus[i])) ++counts[i][word], ++lengths[i];
    for (const auto& [word, n] : counts[i]) ++holders[word];
    mean += lengths[i];
  }
  mean /= static_cast<double>(corpus.size());
  std::vector<Bm25Hit> hits;
  for (size_t i = 0; i < corpus.size(); ++i) {
    float score = 0;
    for (const std::string& word : split(query)) {
      if (counts[i].count(word) == 0) continue;
      const double n = holders[word];
      const double f = counts[i][word];
      const double idf = std::log(1 + (static_cast<double>(corpus.size()) - n + 0.5) / (n + 0.5));
      score += static_cast<float>(idf * f / (f + 1.2f * (1 - 0.75f + 0.75f * lengths[i] / mean)));
    }
    if (score > 0) hits.push_back({static_cast<int32_t>(i), score});
  }
  std::stable_sort(hits.begin(), hits.end(), [](const auto& x, const auto& y) { return x.score > y.score; });
  hits.resize(std::min(hits.size(), k));
  return hits;
}

TEST(Bm25, IsTheFormulaOverRandomCorpora) {
  const unsigned seed = std::random_device{}();
  RecordProperty("seed", static_cast<int>(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto text = [&](size_t most) {
    std::string out;
    for (size_t n = random() % (most + 1); n > 0; --n) out.append("w").append(std::to_string(random() % 12)) += ' ';
    return out;
  };
  ThreadPool pool(2);
  for (int round = 0; round < 40; ++round) {
    std::vector<std::string> corpus(1 + random() % 60);
    for (auto& document : corpus) document = text(14);
    const Bm25Index index = index_of(corpus, {.drop_stop_words = false, .stem = false});
    std::vector<std::string> queries(20);
    for (auto& query : queries) query = text(5);
    const int64_t k = 1 + static_cast<int64_t>(random() % 12);
    const auto hits = index.top({queries.begin(), queries.end()}, k, pool);
    for (size_t q = 0; q < queries.size(); ++q) {
      EXPECT_EQ(hits[q], brute_force(corpus, queries[q], static_cast<size_t>(k))) << queries[q];
    }
  }
}

TEST(Bm25, TiesGoToTheLowerDocument) {
  const Bm25Index index = index_of({"red fox", "blue fox", "green fox", "fox"});
  Bm25Scratch scratch;
  const auto hits = index.top("fox", 3, scratch);
  ASSERT_EQ(hits.size(), 3u);
  EXPECT_EQ(hits[0].document, 3);
  EXPECT_EQ(hits[1].document, 0);
  EXPECT_EQ(hits[2].document, 1);
}

TEST(Bm25, FindsNothingInNothing) {
  Bm25Scratch scratch;
  EXPECT_TRUE(index_of({}).top("fox", 3, scratch).empty());
  EXPECT_TRUE(index_of({"", "!!"}).top("fox", 3, scratch).empty());
  EXPECT_TRUE(index_of({"fox"}).top("", 3, scratch).empty());
  EXPECT_TRUE(index_of({"fox"}).top("the", 3, scratch).empty());
  EXPECT_TRUE(index_of({"fox"}).top("fox", 0, scratch).empty());
}

TEST(Words, AreLowerCasedRunsOfLettersAndDigits) {
  EXPECT_EQ(spaced_words("ÉTAGE-2: Don't, naïve_x ½!"), " étage 2 don t naïve_x ½ ");
  EXPECT_EQ(spaced_words(" … "), " ");
  EXPECT_EQ(count_words("one, two 3"), 3);
}

TEST(Words, AreContainedAsAWholeAndInOrder) {
  const std::string text = spaced_words("He played for the New York Knicks.");
  EXPECT_TRUE(contains_words(text, spaced_words("new york")));
  EXPECT_FALSE(contains_words(text, spaced_words("york new")));
  EXPECT_FALSE(contains_words(text, spaced_words("ork")));
  EXPECT_FALSE(contains_words(text, spaced_words("?")));
}

}  // namespace
}  // namespace msa::train
