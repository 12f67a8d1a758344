// How good a ranking of documents is, and rankings as TREC run files.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/beir.h"

namespace msa::eval {

struct RankedDocument {
  int32_t document = 0;  // index into the set's documents; behind those: documents of other origin
  float score = 0;
};
using Ranking = std::vector<RankedDocument>;  // best first, no document twice

/// The `depth` best of `scores` [documents], ties by lower index; -inf and the documents of `left_out` are not ranked.
Ranking rank_documents(std::span<const float> scores, std::span<const int32_t> left_out, int depth);

inline const std::vector<std::string> kRankingColumns{"recall@1",   "recall@5", "recall@16",
                                                      "recall@100", "mrr",      "ndcg@10"};

/// kRankingColumns of one question, as trec_eval defines them (recall_k, recip_rank, ndcg_cut_10): the share of the
/// gold documents found, the inverse rank of the first one, discounted gain of graded judgements. The gold is not
/// empty.
std::vector<double> score_ranking(const Ranking& ranking, const BeirQuestion& question);

/// Share of the question's gold among `documents`.
double share_found(std::span<const int32_t> gold, std::span<const int32_t> documents);

/// Appends "query Q0 document rank score tag" lines. Scores are written strictly falling (equal ones are moved apart by
/// one unit in the last place), so that every tool reads the same order.
void append_trec_run(std::string& out, const std::string& query_id, const Ranking& ranking,
                     std::span<const std::string> document_ids, const std::string& tag);

/// Rankings by question id, ordered by score, then rank. Plain or .zst. Throws Error naming file and line for a broken
/// line, an unknown question or document, and a document given twice for a question.
std::map<std::string, Ranking> read_trec_run(const std::string& path, const BeirSet& set);

}  // namespace msa::eval
