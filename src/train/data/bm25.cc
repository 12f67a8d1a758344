#include "train/data/bm25.h"

#include <libstemmer.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <queue>
#include <unordered_set>

#include "core/error.h"
#include "train/data/words.h"

namespace msa::train {
namespace {

constexpr std::string_view kStopWords[] = {"a",    "an",   "and",  "are",  "as",   "at",    "be",   "but",   "by",
                                           "for",  "if",   "in",   "into", "is",   "it",    "no",   "not",   "of",
                                           "on",   "or",   "such", "that", "the",  "their", "then", "there", "these",
                                           "they", "this", "to",   "was",  "will", "with"};
constexpr int32_t kNoTerm = -1;

/// Snowball's English stemmer; not for two threads at once.
class Stemmer {
 public:
  Stemmer() : handle_(sb_stemmer_new("english", "UTF_8")) {
    if (handle_ == nullptr) throw std::bad_alloc();
  }

  std::string_view stem(std::string_view word) const {
    const auto* in = reinterpret_cast<const sb_symbol*>(word.data());
    const sb_symbol* out = sb_stemmer_stem(handle_.get(), in, static_cast<int>(word.size()));
    if (out == nullptr) throw std::bad_alloc();
    return {reinterpret_cast<const char*>(out), static_cast<size_t>(sb_stemmer_length(handle_.get()))};
  }

 private:
  struct Delete {
    void operator()(sb_stemmer* stemmer) const { sb_stemmer_delete(stemmer); }
  };
  std::unique_ptr<sb_stemmer, Delete> handle_;
};

bool is_better(const Bm25Hit& x, const Bm25Hit& y) {
  return x.score != y.score ? x.score > y.score : x.document < y.document;
}

}  // namespace

struct Bm25Scratch::Impl {
  Stemmer stemmer;
  std::vector<float> scores;  // [documents], all 0 between searches
};

Bm25Scratch::Bm25Scratch() : impl_(std::make_unique<Impl>()) {}
Bm25Scratch::~Bm25Scratch() = default;
Bm25Scratch::Bm25Scratch(Bm25Scratch&&) noexcept = default;
Bm25Scratch& Bm25Scratch::operator=(Bm25Scratch&&) noexcept = default;

struct Bm25Index::Counted {
  struct Posting {
    int32_t term;
    int32_t count;
  };
  std::vector<Posting> postings;
  std::vector<int64_t> starts = {0};  // [n + 1] offsets into postings
  std::vector<int64_t> lengths;       // [n] words
};

Bm25Index::Bm25Index(int64_t n, const std::function<std::string(int64_t)>& text_of, Bm25Options options)
    : options_(options), n_(n) {
  if (options_.drop_stop_words) {
    for (const std::string_view word : kStopWords) words_.emplace(word, kNoTerm);
  }
  Counted counted;
  count(text_of, counted);
  weigh(counted);
}

void Bm25Index::count(const std::function<std::string(int64_t)>& text_of, Counted& counted) {
  const Stemmer stemmer;
  std::vector<int32_t> occurrences;
  const auto on_word = [&](std::string_view word, int64_t characters) {
    if (characters < 2) return;
    auto known = words_.find(word);
    if (known == words_.end()) {
      const std::string_view stem = options_.stem ? stemmer.stem(word) : word;
      const int32_t term = terms_.emplace(stem, static_cast<int32_t>(terms_.size())).first->second;
      known = words_.emplace(word, term).first;
    }
    if (known->second != kNoTerm) occurrences.push_back(known->second);
  };
  for (int64_t i = 0; i < n_; ++i) {
    occurrences.clear();
    for_each_word(text_of(i), on_word);
    counted.lengths.push_back(static_cast<int64_t>(occurrences.size()));
    std::sort(occurrences.begin(), occurrences.end());
    for (size_t begin = 0, end = 0; begin < occurrences.size(); begin = end) {
      while (end < occurrences.size() && occurrences[end] == occurrences[begin]) ++end;
      counted.postings.push_back({occurrences[begin], static_cast<int32_t>(end - begin)});
    }
    counted.starts.push_back(static_cast<int64_t>(counted.postings.size()));
  }
}

void Bm25Index::weigh(const Counted& counted) {
  starts_.assign(terms_.size() + 1, 0);
  for (const auto& posting : counted.postings) ++starts_[static_cast<size_t>(posting.term) + 1];
  for (size_t t = 1; t < starts_.size(); ++t) starts_[t] += starts_[t - 1];

  double total_length = 0;
  for (const int64_t length : counted.lengths) total_length += static_cast<double>(length);
  const double mean_length = std::max(total_length / static_cast<double>(std::max<int64_t>(n_, 1)), 1e-9);

  documents_.resize(counted.postings.size());
  weights_.resize(counted.postings.size());
  std::vector<int64_t> next(starts_.begin(), starts_.end() - 1);
  for (int64_t i = 0; i < n_; ++i) {
    const double length = static_cast<double>(counted.lengths[static_cast<size_t>(i)]);
    const double norm = options_.k1 * (1 - options_.b + options_.b * length / mean_length);
    for (int64_t p = counted.starts[static_cast<size_t>(i)]; p < counted.starts[static_cast<size_t>(i) + 1]; ++p) {
      const auto& posting = counted.postings[static_cast<size_t>(p)];
      const size_t term = static_cast<size_t>(posting.term);
      const double holders = static_cast<double>(starts_[term + 1] - starts_[term]);
      const double idf = std::log(1 + (static_cast<double>(n_) - holders + 0.5) / (holders + 0.5));
      const size_t slot = static_cast<size_t>(next[term]++);
      documents_[slot] = static_cast<int32_t>(i);
      weights_[slot] = static_cast<float>(idf * posting.count / (norm + posting.count));
    }
  }
}

int32_t Bm25Index::term_of(std::string_view word, Bm25Scratch& scratch) const {
  const auto known = words_.find(word);
  if (known != words_.end()) return known->second;
  const auto term = terms_.find(options_.stem ? scratch.impl_->stemmer.stem(word) : word);
  return term == terms_.end() ? kNoTerm : term->second;
}

template <class Sink>
void Bm25Index::for_each_posting(std::string_view query, Bm25Scratch& scratch, const Sink& sink) const {
  for_each_word(query, [&](std::string_view word, int64_t characters) {
    const int32_t term = characters < 2 ? kNoTerm : term_of(word, scratch);
    if (term == kNoTerm) return;
    const auto end = static_cast<size_t>(starts_[static_cast<size_t>(term) + 1]);
    for (auto p = static_cast<size_t>(starts_[static_cast<size_t>(term)]); p < end; ++p) {
      sink(documents_[p], weights_[p]);
    }
  });
}

std::vector<Bm25Hit> Bm25Index::top(std::string_view query, int64_t k, Bm25Scratch& scratch) const {
  std::vector<float>& scores = scratch.impl_->scores;
  scores.assign(static_cast<size_t>(n_), 0.0f);
  for_each_posting(query, scratch,
                   [&](int32_t document, float weight) { scores[static_cast<size_t>(document)] += weight; });
  return best(scores, k);
}

void Bm25Index::add_scores(std::string_view query, std::span<const int32_t> places, std::span<float> out,
                           Bm25Scratch& scratch) const {
  MSA_CHECK(static_cast<int64_t>(places.size()) == n_);
  for_each_posting(query, scratch, [&](int32_t document, float weight) {
    const int32_t place = places[static_cast<size_t>(document)];
    if (place >= 0) out[static_cast<size_t>(place)] += weight;
  });
}

std::vector<Bm25Hit> Bm25Index::best(const std::vector<float>& scores, int64_t k) const {
  if (k <= 0) return {};
  // The worst of the k best so far is on top; a later document must beat its score, for ties go to the lower number.
  std::priority_queue<Bm25Hit, std::vector<Bm25Hit>, decltype(&is_better)> kept(&is_better);
  float bar = 0;
  const auto take = [&](size_t i) {
    if (scores[i] <= bar) return;
    kept.push({static_cast<int32_t>(i), scores[i]});
    if (static_cast<int64_t>(kept.size()) > k) kept.pop();
    if (static_cast<int64_t>(kept.size()) == k) bar = kept.top().score;
  };
  // Most blocks hold nothing: compilers make this first loop a vector one.
  constexpr size_t kBlock = 64;
  size_t begin = 0;
  for (; begin + kBlock <= scores.size(); begin += kBlock) {
    int above = 0;
    for (size_t i = begin; i < begin + kBlock; ++i) above |= scores[i] > bar;
    for (size_t i = begin; above != 0 && i < begin + kBlock; ++i) take(i);
  }
  for (; begin < scores.size(); ++begin) take(begin);
  std::vector<Bm25Hit> hits(kept.size());
  for (size_t i = hits.size(); i-- > 0; kept.pop()) hits[i] = kept.top();
  return hits;
}

std::vector<std::vector<Bm25Hit>> Bm25Index::top(const std::vector<std::string_view>& queries, int64_t k,
                                                 ThreadPool& pool) const {
  std::vector<std::vector<Bm25Hit>> hits(queries.size());
  std::vector<Bm25Scratch> scratch(static_cast<size_t>(pool.threads()));
  pool.parallel_for(static_cast<int64_t>(queries.size()), 16, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const size_t at = static_cast<size_t>(i);
      hits[at] = top(queries[at], k, scratch[static_cast<size_t>(worker)]);
    }
  });
  return hits;
}

}  // namespace msa::train
