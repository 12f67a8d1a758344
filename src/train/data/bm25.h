// BM25 over documents in memory, exact: the accurate Lucene variant, as the Python package bm25s names it "lucene".
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/thread_pool.h"

namespace msa::train {

struct Bm25Options {
  float k1 = 1.2f;
  float b = 0.75f;
  bool drop_stop_words = true;  // the 33 English ones of Lucene, which bm25s calls "en"
  bool stem = true;             // Snowball's English stemmer
};

struct Bm25Hit {
  int32_t document = 0;
  float score = 0;
  friend bool operator==(const Bm25Hit&, const Bm25Hit&) = default;
};

/// Scratch of one thread that searches. Belongs to one index at a time.
class Bm25Scratch {
 public:
  Bm25Scratch();
  ~Bm25Scratch();
  Bm25Scratch(Bm25Scratch&&) noexcept;
  Bm25Scratch& operator=(Bm25Scratch&&) noexcept;

 private:
  friend class Bm25Index;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class Bm25Index {
 public:
  /// text_of(i) gives document i of n; it is called once for each, in order. Words of one character do not count, as in
  /// bm25s.
  Bm25Index(int64_t n, const std::function<std::string(int64_t)>& text_of, Bm25Options options = {});

  int64_t documents() const { return n_; }
  int64_t terms() const { return static_cast<int64_t>(starts_.size()) - 1; }

  /// The k documents with the highest scores above 0, best first, ties by lower document number. A word given twice
  /// counts twice. Threads may search at the same time, each with its own scratch.
  std::vector<Bm25Hit> top(std::string_view query, int64_t k, Bm25Scratch& scratch) const;

  /// The scores of some documents alone: out[places[d]] += score of each document d with places[d] >= 0. places
  /// [documents()].
  void add_scores(std::string_view query, std::span<const int32_t> places, std::span<float> out,
                  Bm25Scratch& scratch) const;

  /// Searches many queries on a pool; result i belongs to queries[i].
  std::vector<std::vector<Bm25Hit>> top(const std::vector<std::string_view>& queries, int64_t k,
                                        ThreadPool& pool) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  using TermMap = std::unordered_map<std::string, int32_t, Hash, std::equal_to<>>;

  struct Counted;  // postings in document order, before they are sorted by term
  void count(const std::function<std::string(int64_t)>& text_of, Counted& counted);
  void weigh(const Counted& counted);
  /// Calls sink(document, what it adds) for each word of the query and each document that holds it.
  template <class Sink>
  void for_each_posting(std::string_view query, Bm25Scratch& scratch, const Sink& sink) const;
  int32_t term_of(std::string_view word, Bm25Scratch& scratch) const;
  std::vector<Bm25Hit> best(const std::vector<float>& scores, int64_t k) const;

  Bm25Options options_;
  int64_t n_ = 0;
  TermMap terms_;                   // stem (or word) → term
  TermMap words_;                   // word as written → term; -1: a stop word
  std::vector<int64_t> starts_;     // [terms() + 1] offsets into the postings
  std::vector<int32_t> documents_;  // [postings]
  std::vector<float> weights_;      // [postings] what the term adds to the document's score
};

}  // namespace msa::train
