#include "eval/retrieval.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "io/file.h"

namespace msa::eval {
namespace {

constexpr float kNotThere = -std::numeric_limits<float>::infinity();

/// Takes each question's scores by slot and keeps its rankings' scores.
class Collector {
 public:
  Collector(const DocumentIndex& index, RetrievalScores& out)
      : index_(index), out_(out), documents_(index.ids.size()) {}

  void take(const BeirQuestion& question, const RoutedMemory& memory) {
    const size_t n_layers = out_.layers.size();
    std::vector<float> mean(index_.of_slot.size(), 0.0f);
    std::vector<Ranking> rankings;
    for (size_t layer = 0; layer < n_layers; ++layer) {
      const std::span<const float> scores = memory.scores(static_cast<int>(layer));  // [slots]
      for (size_t slot = 0; slot < mean.size(); ++slot) mean[slot] += scores[slot];
      rankings.push_back(rank(scores, question));
      out_.layers[layer].add(score_ranking(rankings.back(), question));
    }
    for (float& m : mean) m /= static_cast<float>(n_layers);
    out_.rankings.push_back(rank(mean, question));
    out_.mean.add(score_ranking(out_.rankings.back(), question));
    out_.gathered.add(std::vector{found_by_any(rankings, question, 1), found_by_any(rankings, question, 5),
                                  found_by_any(rankings, question, 16),
                                  found_by_any(rankings, question, kRankingDepth)});
  }

 private:
  /// Scores by slot → documents by the best of their parts.
  Ranking rank(std::span<const float> scores, const BeirQuestion& question) {
    std::fill(documents_.begin(), documents_.end(), kNotThere);
    for (size_t slot = 0; slot < scores.size(); ++slot) {
      if (index_.of_slot[slot] < 0) continue;
      float& best = documents_[static_cast<size_t>(index_.of_slot[slot])];
      best = std::max(best, scores[slot]);
    }
    return rank_documents(documents_, question.possible, kRankingDepth);
  }

  static double found_by_any(const std::vector<Ranking>& rankings, const BeirQuestion& question, size_t k) {
    std::vector<int32_t> found;
    for (const Ranking& ranking : rankings) {
      for (size_t i = 0; i < std::min(k, ranking.size()); ++i) found.push_back(ranking[i].document);
    }
    return share_found(question.gold, found);
  }

  const DocumentIndex& index_;
  RetrievalScores& out_;
  std::vector<float> documents_;  // [documents] scratch
};

void refuse_blanks(const std::string& id) {
  if (id.find_first_of(" \t\r\n") == std::string::npos) return;
  throw Error("the id '" + id + "' holds a blank, which separates the columns of a run file", "--run",
              "rename it in the set");
}

}  // namespace

std::vector<size_t> choose_questions(const BeirSet& set, int64_t limit, uint64_t seed) {
  std::vector<size_t> with_gold;
  for (size_t i = 0; i < set.questions.size(); ++i) {
    if (!set.questions[i].gold.empty()) with_gold.push_back(i);
  }
  if (with_gold.empty()) throw Error("no question has a gold document", set.folder, "check qrels.tsv");
  std::vector<size_t> chosen;
  for (const size_t i : draw_indices(with_gold.size(), limit, seed)) chosen.push_back(with_gold[i]);
  return chosen;
}

RetrievalScores measure_retrieval(Context& context, const Model& model, const Bank& bank, const BeirSet& set,
                                  std::span<const size_t> questions, const RoutingOptions& options,
                                  const Progress& progress) {
  const auto snapshot = bank.snapshot();
  const DocumentIndex index = DocumentIndex::of(bank, *snapshot, set);
  RetrievalScores scores;
  scores.layers.assign(model.config().memory.routing_layers.size(), ScoreTable(kRankingColumns));
  Collector collector(index, scores);
  std::vector<std::string_view> texts;
  for (const size_t q : questions) texts.push_back(set.questions[q].text);
  const auto start = std::chrono::steady_clock::now();
  QuestionRouter(model, snapshot, options).route(context, texts, [&](size_t i, const RoutedMemory& memory) {
    collector.take(set.questions[questions[i]], memory);
    if (progress) progress(static_cast<int64_t>(i + 1), static_cast<int64_t>(texts.size()));
  });
  scores.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return scores;
}

RetrievalScores score_rankings(const BeirSet& set, std::span<const size_t> questions,
                               const std::map<std::string, Ranking>& rankings) {
  RetrievalScores scores;
  for (const size_t q : questions) {
    const BeirQuestion& question = set.questions[q];
    Ranking ranking;
    if (const auto found = rankings.find(question.id); found != rankings.end()) ranking = found->second;
    std::erase_if(ranking, [&](const RankedDocument& d) {
      return std::find(question.possible.begin(), question.possible.end(), d.document) != question.possible.end();
    });
    scores.mean.add(score_ranking(ranking, question));
    scores.rankings.push_back(std::move(ranking));
  }
  return scores;
}

Json to_json(const RetrievalScores& scores, std::span<const int> layers, const Bootstrap& bootstrap) {
  Json out = {{"mean", scores.mean.summary(bootstrap)}};
  if (scores.layers.empty()) return out;
  out["union"] = scores.gathered.summary(bootstrap);
  out["layers"] = Json::object();
  for (size_t i = 0; i < scores.layers.size(); ++i) {
    out["layers"][std::to_string(layers[i])] = scores.layers[i].summary(bootstrap);
  }
  return out;
}

void write_trec_run(const std::string& path, const BeirSet& set, std::span<const size_t> questions,
                    std::span<const Ranking> rankings, std::span<const std::string> document_ids) {
  std::string lines;
  for (size_t i = 0; i < questions.size(); ++i) {
    const std::string& id = set.questions[questions[i]].id;
    refuse_blanks(id);
    for (const RankedDocument& d : rankings[i]) refuse_blanks(document_ids[static_cast<size_t>(d.document)]);
    append_trec_run(lines, id, rankings[i], document_ids, "msa");
  }
  write_file_atomically(path, lines);
}

}  // namespace msa::eval
