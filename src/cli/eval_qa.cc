// msa eval qa: answers measured, with the system's retrieval, another one's, the gold documents, and none.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <optional>

#include "cli/eval.h"
#include "cli/progress.h"
#include "eval/judge.h"
#include "eval/qa.h"
#include "io/file.h"

namespace msa::cli {
namespace {

struct Options {
  EvalOptions eval;
  eval::QaOptions qa;
  std::string modes;
  std::string read = "5";
  std::string output;
  eval::JudgeOptions judge;
};

std::vector<eval::QaMode> modes_of(const Options& o) {
  const bool has_run = !o.eval.run_in.empty();
  const auto modes = eval::parse_modes(!o.modes.empty() ? o.modes : has_run ? "run" : "system,gold,none");
  if (has_run != (std::find(modes.begin(), modes.end(), eval::QaMode::kRun) != modes.end())) {
    throw Error("the mode run and --documents-from go together", "--modes", "give both or neither");
  }
  return modes;
}

int read_count(const std::string& text) {
  if (text == "fit") return 0;
  int count = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (code == std::errc() && end == text.data() + text.size() && count >= 1) return count;
  throw Error("'" + text + "' is no number of documents", "--read", "give 1, 3, 5, … or fit");
}

/// One line a question and mode: what a judge, or a reader, needs.
std::string answer_line(const BeirQuestion& question, const eval::QaAnswer& answer,
                        const std::optional<double>& grade) {
  Json line = {{"id", answer.question_id},    {"mode", answer.mode},       {"question", question.text},
               {"answers", question.answers}, {"prediction", answer.text}, {"documents", answer.documents}};
  for (size_t i = 0; i < eval::kQaColumns.size(); ++i) line["scores"][eval::kQaColumns[i]] = answer.scores[i];
  if (grade) line["scores"]["judge"] = *grade;
  return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::unique_ptr<eval::Judge> make_judge(eval::JudgeOptions options) {
  if (options.url.empty()) return nullptr;
  if (const char* key = std::getenv("MSA_JUDGE_KEY")) options.key = key;
  return std::make_unique<eval::Judge>(std::move(options));
}

/// What one mode's answers scored.
struct ModeScores {
  eval::ScoreTable answers{eval::kQaColumns};
  eval::ScoreTable grades{{"judge"}};  // of the answers that the judge graded

  Json summary(const Options& o) const {
    Json out = answers.summary(o.eval.bootstrap);
    if (o.judge.url.empty()) return out;
    out.update(grades.summary(o.eval.bootstrap));
    out["judge"]["ungraded"] = answers.rows() - grades.rows();
    return out;
  }
};

/// Asks every question in every mode; the metrics by mode.
Json ask_all(Context& context, eval::QaEvaluation& evaluation, const BeirSet& set, std::span<const size_t> questions,
             const Options& o) {
  const std::vector<eval::QaMode> modes = modes_of(o);
  const std::unique_ptr<eval::Judge> judge = make_judge(o.judge);
  std::vector<ModeScores> scores(modes.size());
  std::string lines;
  ProgressBar bar("answering", static_cast<int64_t>(questions.size() * modes.size()), "answers");
  for (const size_t q : questions) {
    const BeirQuestion& question = set.questions[q];
    for (size_t m = 0; m < modes.size(); ++m) {
      const eval::QaAnswer answer = evaluation.answer(context, modes[m], question);
      std::optional<double> grade;
      if (judge) grade = judge->grade(question.text, question.answers, answer.text);
      scores[m].answers.add(answer.scores);
      if (grade) scores[m].grades.add(std::vector{*grade});
      lines += answer_line(question, answer, grade);
      bar.advance(1);
    }
  }
  bar.finish();
  if (!o.output.empty()) write_file_atomically(o.output, lines);
  Json metrics = Json::object();
  for (size_t m = 0; m < modes.size(); ++m) metrics[eval::name_of(modes[m])] = scores[m].summary(o);
  return metrics;
}

int run(const Common& common, Options o) {
  Ranks ranks(common);
  if (!ranks.is_driver()) return ranks.serve(/*encodes=*/true);
  Context context = make_context(common);
  o.qa.ranks = ranks.driver(context);
  o.qa.read = read_count(o.read);
  o.qa.device = device_options(common);
  const std::vector<eval::QaMode> modes = modes_of(o);
  const BeirSet set = load_beir(o.eval.data);
  const std::vector<size_t> questions = eval::choose_answerable(set, o.eval.limit, o.eval.bootstrap.seed);
  std::map<std::string, eval::Ranking> rankings;
  if (!o.eval.run_in.empty()) rankings = eval::read_trec_run(o.eval.run_in, set);
  Json report = report_header("qa", o.eval);
  report["questions"] = questions.size();
  report["questions_in_set"] = set.questions.size();
  report["documents"] = set.documents.size();
  if (!o.judge.url.empty()) report["judge"] = {{"url", o.judge.url}, {"model", o.judge.model}};
  if (!o.eval.run_in.empty()) report["run"] = {{"file", o.eval.run_in}, {"read", o.read}};

  const Model model = load_model(context, common);
  report.update(to_json(model));
  std::unique_ptr<Bank> bank;
  if (std::find(modes.begin(), modes.end(), eval::QaMode::kSystem) != modes.end()) {
    bank = open_eval_bank(common, model, o.qa.ranks);
    report["bank"] = to_json(encode_corpus(context, model, *bank, set, o.qa.ranks));
  } else {
    bank = Bank::in_memory(bank_shape(model.transformer()));
    o.qa.ranks = nullptr;
  }
  eval::QaEvaluation evaluation(model, *bank, set, o.qa);
  evaluation.set_rankings(std::move(rankings));
  report["metrics"] = ask_all(context, evaluation, set, questions, o);
  if (common.json) {
    print_json(report);
  } else {
    for (const auto& [mode, metrics] : report["metrics"].items()) print_metrics(mode, metrics);
  }
  return 0;
}

}  // namespace

void register_eval_qa(CLI::App& eval, Common& common, Command& command) {
  CLI::App* qa = eval.add_subcommand("qa", "How right answers are, and what retrieval contributes");
  auto o = std::make_shared<Options>();
  o->qa.ask.max_answer_tokens = 48;
  add_eval_options(*qa, o->eval);
  qa->add_option(
      "--modes", o->modes,
      "Comma-separated: system, gold (its documents given), none (no documents), run (with --documents-from), "
      "whole (all documents given). Default: system,gold,none, or run");
  qa->add_option("--documents-from", o->eval.run_in, "TREC run whose best documents the model is given to read");
  qa->add_option("--read", o->read, "How many documents of the run: a number, or fit for as many as fit")
      ->capture_default_str();
  qa->add_option("--output", o->output, "Write each answer with its scores, one JSON object a line");
  CLI::Option* judge = qa->add_option(
      "--judge", o->judge.url,
      "Let the model behind this OpenAI-compatible endpoint grade answers from 0 to 5; key: $MSA_JUDGE_KEY");
  CLI::Option* judge_model = qa->add_option("--judge-model", o->judge.model, "The judging model's name there");
  judge->needs(judge_model);
  judge_model->needs(judge);
  add_answer_options(*qa, o->qa.ask);
  add_model_options(*qa, common);
  add_device_bank_options(*qa, common);
  add_rank_options(*qa, common);
  add_bank_option(*qa, common);
  add_json_option(*qa, common);
  qa->callback([&common, &command, o] { command = [&common, o] { return run(common, *o); }; });
}

}  // namespace msa::cli
