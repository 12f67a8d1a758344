// What a growing bank is filled with, in a fixed order: the questions' gold documents, the rest of their set, documents
// of other corpora, then synthetic ones.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "io/beir.h"
#include "io/file_reader.h"

namespace msa::eval {

/// Documents that repeat much of a gold document would make its question's gold incomplete.
class GoldFilter {
 public:
  void add_gold(std::string_view text);
  /// True when a fifth of the text's runs of eight words, normalised, stand in a gold text; shorter texts when the
  /// whole stands in one of the same words.
  bool repeats_gold(std::string_view text) const;

 private:
  std::unordered_set<uint64_t> shingles_;
};

/// Text spliced from documents: it follows one of them word by word and now and then goes on where the same word stands
/// elsewhere. Words, their frequencies and short phrases are real, the whole says nothing.
class TextSplicer {
 public:
  explicit TextSplicer(uint64_t seed) : random_(seed) {}

  void learn(std::string_view text);  // ignored above two million words
  bool empty() const { return words_.empty(); }
  std::string next();  // about as long as one of the documents; not empty()

 private:
  std::mt19937_64 random_;
  std::vector<std::string> vocabulary_;
  std::unordered_map<std::string, uint32_t> ids_;
  std::vector<uint32_t> words_;                // all documents, one after the other
  std::vector<uint32_t> lengths_;              // of the documents, in words
  std::vector<std::vector<uint32_t>> places_;  // [vocabulary] positions in words_
};

enum class Origin { kGold, kSet, kOther, kSynthetic };
constexpr int kOrigins = 4;
const char* name_of(Origin origin);

struct FillDocument {
  std::string external_id;
  std::string text;
  Origin origin = Origin::kGold;
};

/// The endless sequence; the same for the same set, questions, corpora and seed.
class FillStream {
 public:
  /// `gold`: indices of the set's documents that come first. `corpora`: BEIR corpus files or folders.
  FillStream(const BeirSet& set, std::span<const int32_t> gold, std::vector<std::string> corpora, uint64_t seed);

  /// Throws Error for a broken corpus.
  FillDocument next();
  int64_t left_out() const { return left_out_; }  // documents of other corpora that repeat gold

 private:
  std::optional<FillDocument> next_of_set();
  std::optional<FillDocument> next_of_corpora();
  FillDocument next_synthetic();

  const BeirSet& set_;
  std::vector<int32_t> order_;  // of the set's documents: gold first
  size_t n_gold_;
  std::vector<std::string> corpora_;
  size_t position_ = 0;  // in order_
  size_t corpus_ = 0;
  std::unique_ptr<LineReader> lines_;  // of corpora_[corpus_]
  GoldFilter filter_;
  TextSplicer splicer_;
  int64_t synthetic_ = 0, left_out_ = 0;
};

}  // namespace msa::eval
