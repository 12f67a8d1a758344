#include "eval/qa.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "eval/answer_metrics.h"

namespace msa::eval {
namespace {

constexpr std::pair<QaMode, const char*> kModes[] = {{QaMode::kSystem, "system"},
                                                     {QaMode::kGold, "gold"},
                                                     {QaMode::kNone, "none"},
                                                     {QaMode::kRun, "run"},
                                                     {QaMode::kWhole, "whole"}};

AskOptions without_byte_limit(AskOptions options) {
  options.max_fetched_bytes = std::numeric_limits<int64_t>::max();
  return options;
}

}  // namespace

const char* name_of(QaMode mode) {
  const auto* const found =
      std::find_if(std::begin(kModes), std::end(kModes), [&](auto& m) { return m.first == mode; });
  MSA_CHECK(found != std::end(kModes));
  return found->second;
}

std::vector<QaMode> parse_modes(const std::string& names) {
  std::vector<QaMode> modes;
  for (size_t at = 0; at <= names.size();) {
    const size_t end = std::min(names.find(',', at), names.size());
    const std::string name = names.substr(at, end - at);
    const auto* const found =
        std::find_if(std::begin(kModes), std::end(kModes), [&](auto& m) { return m.second == name; });
    if (found == std::end(kModes)) {
      throw Error("'" + name + "' is no mode", "--modes", "choose among system, gold, none, run, whole");
    }
    if (std::find(modes.begin(), modes.end(), found->first) != modes.end()) {
      throw Error("'" + name + "' is there twice", "--modes", "name each once");
    }
    modes.push_back(found->first);
    at = end + 1;
  }
  return modes;
}

std::vector<size_t> choose_answerable(const BeirSet& set, int64_t limit, uint64_t seed) {
  std::vector<size_t> answerable;
  for (size_t i = 0; i < set.questions.size(); ++i) {
    if (!set.questions[i].gold.empty() && !set.questions[i].answers.empty()) answerable.push_back(i);
  }
  if (answerable.empty()) {
    throw Error("no question has both a gold document and answers", set.folder,
                "queries.jsonl needs \"answers\": [\"…\"] beside \"text\"");
  }
  std::vector<size_t> chosen;
  for (const size_t i : draw_indices(answerable.size(), limit, seed)) chosen.push_back(answerable[i]);
  return chosen;
}

QaEvaluation::QaEvaluation(const Model& model, const Bank& bank, const BeirSet& set, const QaOptions& options)
    : set_(set),
      options_(options),
      generator_(model, bank, options.device, options.ranks),
      index_(DocumentIndex::of(bank, *bank.snapshot(), set)) {}

QaAnswer QaEvaluation::answer(Context& context, QaMode mode, const BeirQuestion& question) {
  Answer answer;
  if (mode == QaMode::kSystem) {
    answer = generator_.ask(context, question.text, options_.ask);
  } else {
    const std::vector<GivenDocument> documents = given_documents(mode, question);
    answer = generator_.read(context, question.text, documents, without_byte_limit(options_.ask));
    if (mode == QaMode::kWhole && answer.documents.size() < documents.size()) {
      throw Error(std::to_string(answer.documents.size()) + " of " + std::to_string(documents.size()) +
                      " documents fit into the model's context",
                  "--modes whole", "leave this mode out for a corpus of this size");
    }
  }
  return score(mode, question, answer);
}

std::vector<GivenDocument> QaEvaluation::given_documents(QaMode mode, const BeirQuestion& question) const {
  std::vector<GivenDocument> documents;
  const auto give = [&](int32_t d) {
    const BeirDocument& document = set_.documents[static_cast<size_t>(d)];
    documents.push_back({int64_t{d} + 1, document.id, document.full_text()});
  };
  if (mode == QaMode::kGold) {
    // In the order in which they lead to the answer, where the set tells it.
    const bool ordered =
        std::is_permutation(question.hops.begin(), question.hops.end(), question.gold.begin(), question.gold.end());
    for (const int32_t d : ordered ? question.hops : question.gold) give(d);
  } else if (mode == QaMode::kWhole) {
    for (size_t d = 0; d < set_.documents.size(); ++d) give(static_cast<int32_t>(d));
  } else if (const auto found = rankings_.find(question.id); mode == QaMode::kRun && found != rankings_.end()) {
    for (const RankedDocument& d : found->second) {
      if (options_.read > 0 && documents.size() == static_cast<size_t>(options_.read)) break;
      give(d.document);
    }
  }
  return documents;
}

QaAnswer QaEvaluation::score(QaMode mode, const BeirQuestion& question, const Answer& answer) const {
  QaAnswer out;
  out.mode = name_of(mode);
  out.question_id = question.id;
  if (answer.stop_reason != "not_found") out.text = answer.text;
  std::string texts;
  std::vector<int32_t> found;
  for (const FetchedDocument& d : answer.documents) {
    texts += d.text + "\n";
    found.push_back(mode == QaMode::kSystem ? index_.of_bank.at(d.id) : static_cast<int32_t>(d.id - 1));
    out.documents.push_back(index_.ids[static_cast<size_t>(found.back())]);
  }
  const AnswerScores scores = score_answer(out.text, question.answers);
  const double hops = static_cast<double>(
      std::count_if(answer.hops.begin(), answer.hops.end(), [](const HopTrace& h) { return !h.fetched.empty(); }));
  out.scores = {scores.exact_match,
                scores.f1,
                scores.answer_in_text,
                answer_in_text(texts, question.answers),
                share_found(question.gold, found),
                static_cast<double>(answer.documents.size()),
                hops,
                static_cast<double>(answer.prompt_tokens),
                static_cast<double>(answer.answer_tokens),
                answer.total_ms};
  return out;
}

}  // namespace msa::eval
