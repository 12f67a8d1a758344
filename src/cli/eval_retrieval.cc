// msa eval retrieval: recall, MRR and nDCG of routing over a whole corpus, or of a TREC run made elsewhere.
#include "cli/eval.h"

#include <fmt/format.h>

#include <iostream>

#include "cli/progress.h"
#include "eval/retrieval.h"

namespace msa::cli {
namespace {

struct Options {
  EvalOptions eval;
  std::string run_out;
  bool embedding = false;
  bool layers = false;
};

void print(const Json& report, bool layers) {
  for (const auto& [name, metrics] : report["metrics"].items()) {
    if (name != "layers") print_metrics(name, metrics);
  }
  if (!layers || !report["metrics"].contains("layers")) return;
  for (const auto& [name, metrics] : report["metrics"]["layers"].items()) print_metrics("layer " + name, metrics);
}

Json score_run(const Options& o, const BeirSet& set, std::span<const size_t> questions) {
  const auto rankings = eval::read_trec_run(o.eval.run_in, set);
  const eval::RetrievalScores scores = eval::score_rankings(set, questions, rankings);
  return {{"run", o.eval.run_in}, {"metrics", eval::to_json(scores, {}, o.eval.bootstrap)}};
}

Json score_routing(const Common& common, const Options& o, const BeirSet& set, std::span<const size_t> questions,
                   Ranks& run) {
  Context context = make_context(common);
  ShardDriver* const ranks = run.driver(context);
  const Model model = load_model(context, common);
  const auto bank = open_eval_bank(common, model, ranks);
  const eval::BankReport bank_report = encode_corpus(context, model, *bank, set, ranks);
  ProgressBar bar("routing", static_cast<int64_t>(questions.size()), "questions");
  eval::RoutingOptions options;
  options.attend_memory = !o.embedding;
  options.device = device_options(common);
  options.ranks = ranks;
  const eval::RetrievalScores scores = eval::measure_retrieval(context, model, *bank, set, questions, options,
                                                               [&](int64_t done, int64_t) { bar.update(done); });
  bar.finish();
  if (!o.run_out.empty()) {
    const auto index = eval::DocumentIndex::of(*bank, *bank->snapshot(), set);
    eval::write_trec_run(o.run_out, set, questions, scores.rankings, index.ids);
  }
  Json report = to_json(model);
  report["scoring"] = o.embedding ? "embedding" : "model";
  report["bank"] = to_json(bank_report);
  report["metrics"] = eval::to_json(scores, model.config().memory.routing_layers, o.eval.bootstrap);
  report["ms_per_question"] = scores.milliseconds / static_cast<double>(questions.size());
  return report;
}

int run(const Common& common, const Options& o) {
  Ranks ranks(common);
  if (!ranks.is_driver()) return o.eval.run_in.empty() ? ranks.serve(/*encodes=*/true) : 0;
  const BeirSet set = load_beir(o.eval.data);
  const std::vector<size_t> questions = eval::choose_questions(set, o.eval.limit, o.eval.bootstrap.seed);
  Json report = report_header("retrieval", o.eval);
  report["questions"] = questions.size();
  report["questions_in_set"] = set.questions.size();
  report["documents"] = set.documents.size();
  report.update(o.eval.run_in.empty() ? score_routing(common, o, set, questions, ranks) : score_run(o, set, questions));
  if (common.json) {
    print_json(report);
  } else {
    print(report, o.layers);
    std::cerr << fmt::format("{} questions, {} documents, 95 % intervals of {} bootstrap samples, seed {}\n",
                             questions.size(), set.documents.size(), o.eval.bootstrap.resamples, o.eval.bootstrap.seed);
  }
  return 0;
}

}  // namespace

void register_eval_retrieval(CLI::App& eval, Common& common, Command& command) {
  CLI::App* retrieval = eval.add_subcommand("retrieval", "Share of the gold documents that routing finds");
  auto o = std::make_shared<Options>();
  add_eval_options(*retrieval, o->eval);
  retrieval->add_option("--run", o->run_out, "Write the rankings (100 documents a question) as a TREC run file");
  CLI::Option* from = retrieval->add_option("--documents-from", o->eval.run_in,
                                            "Score this TREC run instead of routing; needs no model");
  retrieval
      ->add_flag("--embedding", o->embedding,
                 "Let questions attend to nothing, so that a score depends on question and document alone")
      ->excludes(from);
  retrieval->add_flag("--layers", o->layers, "Print each routing layer too (--json always has them)");
  add_model_options(*retrieval, common);
  add_device_bank_options(*retrieval, common);
  add_rank_options(*retrieval, common);
  add_bank_option(*retrieval, common);
  add_json_option(*retrieval, common);
  retrieval->callback([&common, &command, o] { command = [&common, o] { return run(common, *o); }; });
}

}  // namespace msa::cli
