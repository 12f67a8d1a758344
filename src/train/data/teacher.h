// What a retriever found, from a file: soft targets of a teacher, or hard negatives.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "train/data/dataset.h"

namespace msa::train {

struct ScoredDocument {
  int32_t document = 0;
  float score = 0;
};

/// Documents by question of one data set.
class ScoreTable {
 public:
  enum class Columns { kWithScores, kScoresOptional };

  ScoreTable() = default;
  /// TSV query-id, corpus-id, score (with or without a header line; two columns where scores are optional), or a TREC
  /// run (query Q0 document rank score tag). Plain or .zst. Throws Error naming the line for anything else, an id that
  /// the set lacks and a score that is no number; and for a document twice under one question.
  static ScoreTable load(const std::string& path, const Dataset& dataset, Columns columns);

  /// In the order of the file. Empty for a question that the file does not name.
  std::span<const ScoredDocument> of(int32_t question) const {
    if (starts_.empty()) return {};
    const auto at = static_cast<size_t>(question);
    return std::span(rows_).subspan(static_cast<size_t>(starts_[at]),
                                    static_cast<size_t>(starts_[at + 1] - starts_[at]));
  }
  bool empty() const { return rows_.empty(); }

 private:
  std::vector<ScoredDocument> rows_;
  std::vector<int64_t> starts_;  // [questions + 1]
};

}  // namespace msa::train
