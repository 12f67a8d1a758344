// Question answering: what the model answers when the system retrieves, when the gold documents are given, when another
// retriever's documents are given, and without any.
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/generator.h"
#include "eval/corpus_bank.h"
#include "eval/ranking.h"
#include "eval/score_table.h"

namespace msa::eval {

enum class QaMode {
  kSystem,  // the memory: routing, hops, fetched documents
  kGold,    // the gold documents are given: what perfect retrieval would give
  kNone,    // no documents: what the model knows by itself
  kRun,     // the best documents of a run are given: retrieval-augmented generation
  kWhole,   // every document of the corpus is given, where all fit into the model's context
};
const char* name_of(QaMode mode);
/// "system,gold": throws Error for an unknown or repeated name.
std::vector<QaMode> parse_modes(const std::string& names);

inline const std::vector<std::string> kQaColumns{
    "exact_match", "f1",   "answer_in_text", "answer_in_documents", "documents_recall",
    "documents",   "hops", "prompt_tokens",  "answer_tokens",       "ms"};

struct QaOptions {
  AskOptions ask;
  DeviceOptions device;
  ShardDriver* ranks = nullptr;  // where the bank lies on several
  int read = 5;                  // documents of the run that are given; 0: as many as fit
};

struct QaAnswer {
  std::string question_id, mode, text;
  std::vector<std::string> documents;  // ids in the set of those fetched or given
  std::vector<double> scores;          // kQaColumns
};

/// Questions with gold and answers: `limit` of them drawn with the seed. Throws Error when there are none.
std::vector<size_t> choose_answerable(const BeirSet& set, int64_t limit, uint64_t seed);

class QaEvaluation {
 public:
  /// `bank` holds the set's corpus where kSystem is asked for; otherwise an empty one does.
  QaEvaluation(const Model& model, const Bank& bank, const BeirSet& set, const QaOptions& options);

  /// Throws Error for kWhole when the corpus does not fit.
  QaAnswer answer(Context& context, QaMode mode, const BeirQuestion& question);

  /// For kRun.
  void set_rankings(std::map<std::string, Ranking> rankings) { rankings_ = std::move(rankings); }

 private:
  std::vector<GivenDocument> given_documents(QaMode mode, const BeirQuestion& question) const;
  QaAnswer score(QaMode mode, const BeirQuestion& question, const Answer& answer) const;

  const BeirSet& set_;
  QaOptions options_;
  Generator generator_;
  DocumentIndex index_;
  std::map<std::string, Ranking> rankings_;
};

}  // namespace msa::eval
