#include "eval/ranking.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "io/text.h"

namespace msa::eval {
namespace {

constexpr float kNotRanked = -std::numeric_limits<float>::infinity();
constexpr size_t kGainDepth = 10;
constexpr const char* kRunFix = "each line: query-id Q0 document-id rank score tag, separated by blanks";

int32_t grade_of(const BeirQuestion& question, int32_t document) {
  const auto found = std::find(question.gold.begin(), question.gold.end(), document);
  return found == question.gold.end() ? 0 : question.grades[static_cast<size_t>(found - question.gold.begin())];
}

double discounted(int32_t grade, size_t index) { return grade / std::log2(static_cast<double>(index) + 2); }

double gain_at_10(const Ranking& ranking, const BeirQuestion& question) {
  double gain = 0;
  for (size_t i = 0; i < std::min(kGainDepth, ranking.size()); ++i) {
    gain += discounted(grade_of(question, ranking[i].document), i);
  }
  std::vector<int32_t> ideal = question.grades;
  std::sort(ideal.rbegin(), ideal.rend());
  double best = 0;
  for (size_t i = 0; i < std::min(kGainDepth, ideal.size()); ++i) best += discounted(ideal[i], i);
  return gain / best;
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (size_t at = 0; (at = line.find_first_not_of(" \t\r", at)) != std::string_view::npos;) {
    const size_t end = std::min(line.find_first_of(" \t\r", at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

template <class Number>
std::optional<Number> number_of(std::string_view word) {
  Number value{};
  const auto [end, code] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (code != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

/// Lines of a run by question, until all are read and can be ordered.
class RunReader {
 public:
  explicit RunReader(const BeirSet& set) {
    for (const BeirQuestion& q : set.questions) questions_.insert(q.id);
    for (size_t i = 0; i < set.documents.size(); ++i) documents_.emplace(set.documents[i].id, static_cast<int32_t>(i));
  }

  void take(std::string_view line, const std::string& where) {
    const auto words = words_of(line);
    if (words.size() != 6) throw Error(fmt::format("{} columns instead of 6", words.size()), where, kRunFix);
    const auto rank = number_of<int64_t>(words[3]);
    const auto score = number_of<double>(words[4]);
    if (!rank || !score || !std::isfinite(*score)) throw Error("rank or score is no number", where, kRunFix);
    const std::string query(words[0]);
    if (!questions_.contains(query)) {
      throw Error("there is no question '" + printable(query) + "'", where, "use a run of this set");
    }
    const auto document = documents_.find(std::string(words[2]));
    if (document == documents_.end()) {
      throw Error("the corpus has no document '" + printable(words[2]) + "'", where, "use a run of this set");
    }
    auto& lines = lines_[query];
    if (!seen_[query].insert(document->second).second) {
      throw Error("document '" + printable(words[2]) + "' is there twice for this question", where, kRunFix);
    }
    lines.push_back({*score, *rank, document->second});
  }

  std::map<std::string, Ranking> rankings() {
    std::map<std::string, Ranking> out;
    for (auto& [query, lines] : lines_) {
      std::stable_sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) {
        return a.score != b.score ? a.score > b.score : a.rank < b.rank;
      });
      for (const Line& line : lines) out[query].push_back({line.document, static_cast<float>(line.score)});
    }
    return out;
  }

 private:
  struct Line {
    double score;
    int64_t rank;
    int32_t document;
  };
  std::unordered_set<std::string> questions_;
  std::unordered_map<std::string, int32_t> documents_;
  std::map<std::string, std::vector<Line>> lines_;
  std::map<std::string, std::set<int32_t>> seen_;
};

}  // namespace

Ranking rank_documents(std::span<const float> scores, std::span<const int32_t> left_out, int depth) {
  const auto better = [](const RankedDocument& a, const RankedDocument& b) {
    return a.score != b.score ? a.score > b.score : a.document < b.document;
  };
  // A document at most gets into the best `depth`; those left out take places until they are removed.
  const size_t wanted = static_cast<size_t>(depth) + left_out.size();
  Ranking best;  // a heap, the worst on top
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!(scores[i] > kNotRanked)) continue;
    const RankedDocument candidate{static_cast<int32_t>(i), scores[i]};
    const bool full = best.size() == wanted;
    if (full && !better(candidate, best.front())) continue;
    if (full) {
      std::pop_heap(best.begin(), best.end(), better);
      best.pop_back();
    }
    best.push_back(candidate);
    std::push_heap(best.begin(), best.end(), better);
  }
  std::sort_heap(best.begin(), best.end(), better);
  std::erase_if(best, [&](const RankedDocument& d) {
    return std::find(left_out.begin(), left_out.end(), d.document) != left_out.end();
  });
  best.resize(std::min(best.size(), static_cast<size_t>(depth)));
  return best;
}

double share_found(std::span<const int32_t> gold, std::span<const int32_t> documents) {
  MSA_CHECK(!gold.empty());
  const auto found = std::count_if(gold.begin(), gold.end(), [&](int32_t g) {
    return std::find(documents.begin(), documents.end(), g) != documents.end();
  });
  return static_cast<double>(found) / static_cast<double>(gold.size());
}

std::vector<double> score_ranking(const Ranking& ranking, const BeirQuestion& question) {
  MSA_CHECK(!question.gold.empty() && question.gold.size() == question.grades.size());
  std::vector<int32_t> documents;
  double inverse_rank = 0;
  for (size_t i = 0; i < ranking.size(); ++i) {
    documents.push_back(ranking[i].document);
    if (inverse_rank == 0 && grade_of(question, ranking[i].document) > 0)
      inverse_rank = 1.0 / static_cast<double>(i + 1);
  }
  const auto found_at = [&](size_t k) {
    return share_found(question.gold, std::span(documents).first(std::min(k, documents.size())));
  };
  return {found_at(1), found_at(5), found_at(16), found_at(100), inverse_rank, gain_at_10(ranking, question)};
}

void append_trec_run(std::string& out, const std::string& query_id, const Ranking& ranking,
                     std::span<const std::string> document_ids, const std::string& tag) {
  float last = std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < ranking.size(); ++i) {
    last = std::min(ranking[i].score, std::nextafter(last, kNotRanked));
    out += fmt::format("{} Q0 {} {} {:.9g} {}\n", query_id, document_ids[static_cast<size_t>(ranking[i].document)],
                       i + 1, last, tag);
  }
}

std::map<std::string, Ranking> read_trec_run(const std::string& path, const BeirSet& set) {
  RunReader reader(set);
  for_each_line(path, kMaxBeirLineBytes,
                [&](std::string_view line, const std::string& where) { reader.take(line, where); });
  auto rankings = reader.rankings();
  if (rankings.empty()) throw Error("no lines in it", path, kRunFix);
  return rankings;
}

}  // namespace msa::eval
