// Training questions from a plain corpus: `msa-train make-data`.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "train/make_data/question.h"

namespace msa::train {

constexpr int64_t kAllQuestions = -1;

struct MakeDataOptions {
  std::string corpus;  // BEIR folder; only corpus.jsonl[.zst] and tables.jsonl[.zst] are read, never its questions
  std::string output;  // BEIR folder, made where it is missing
  /// At most so many of each kind, in the order of QuestionKind; kAllQuestions: all that can be made.
  std::array<int64_t, kQuestionKinds> most = {20000, 20000, 20000, 20000, 20000};
  /// Share of the inverse-cloze questions whose sentence leaves its document.
  double removed_share = 0.5;
  uint64_t seed = 1;
  int64_t hard_negatives = 8;   // a question, at most
  int64_t limit_documents = 0;  // the first so many of the corpus; 0: all
  int threads = 0;              // 0: every CPU
};

struct MakeDataReport {
  int64_t documents = 0;
  int64_t changed_documents = 0;  // those that lost a sentence
  int64_t tables = 0;
  std::array<int64_t, kQuestionKinds> made = {};  // candidates that passed every filter
  std::array<int64_t, kQuestionKinds> kept = {};
  int64_t hard_negatives = 0;
};

/// "2 of 5 tables": called on the calling thread now and then. An exception from it ends the work; nothing is written
/// then.
using MakeDataProgress = std::function<void(std::string_view stage, int64_t done, int64_t total)>;

/// Writes corpus.jsonl.zst, queries.jsonl.zst {"_id", "text", "answers", "type", "hops"}, qrels.tsv, hard_negatives.tsv
/// (query-id, corpus-id, hardest first) and SOURCE into the output folder. Documents keep their order; inverse-cloze
/// questions whose sentence was taken out of its document carry "removed": true. The same options give the same
/// bytes on any number of threads. Throws Error for options and files that make no sense, before it writes.
MakeDataReport make_data(const MakeDataOptions& options, const MakeDataProgress& progress = {});

}  // namespace msa::train
