// Retrieval: how much of the gold a question's routing finds in a whole bank, per layer, by mean and by union.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "eval/corpus_bank.h"
#include "eval/question_router.h"
#include "eval/ranking.h"
#include "eval/score_table.h"

namespace msa::eval {

constexpr int kRankingDepth = 100;  // the deepest column; rankings and runs end here

struct RetrievalScores {
  ScoreTable mean{kRankingColumns};  // documents by their mean score over the routing layers: what `msa ask` fetches by
  ScoreTable gathered{{"recall@1", "recall@5", "recall@16", "recall@100"}};  // found by any layer's best k
  std::vector<ScoreTable> layers;                                            // [routing layers]
  std::vector<Ranking> rankings;                                             // [questions] by mean
  double milliseconds = 0;                                                   // of routing all questions
};

/// Indices of the questions that have gold: `limit` of them drawn with the seed (all when below 0).
/// Throws Error when none has.
std::vector<size_t> choose_questions(const BeirSet& set, int64_t limit, uint64_t seed);

/// Routes the questions (indices into the set). Documents that may answer a question without being judged
/// (possible_positives.tsv) are left out of its rankings.
RetrievalScores measure_retrieval(Context& context, const Model& model, const Bank& bank, const BeirSet& set,
                                  std::span<const size_t> questions, const RoutingOptions& options,
                                  const Progress& progress);

/// The same columns for rankings made elsewhere; a question without a ranking scores 0.
RetrievalScores score_rankings(const BeirSet& set, std::span<const size_t> questions,
                               const std::map<std::string, Ranking>& rankings);

/// {"mean": {…}, "union": {…}, "layers": {"15": {…}, …}}; the last two only where layers were measured.
Json to_json(const RetrievalScores& scores, std::span<const int> layers, const Bootstrap& bootstrap);

/// Throws Error for a file that cannot be written, and for ids with blanks, which the format cannot hold.
void write_trec_run(const std::string& path, const BeirSet& set, std::span<const size_t> questions,
                    std::span<const Ranking> rankings, std::span<const std::string> document_ids);

}  // namespace msa::eval
