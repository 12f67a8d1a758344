// msa eval: measures retrieval and answers on question sets, each figure with its interval.
#include "cli/eval.h"

#include <fmt/format.h>

#include <cstdlib>
#include <iostream>

#include "cli/progress.h"
#include "core/cpu.h"

namespace msa::cli {

void add_eval_options(CLI::App& app, EvalOptions& options) {
  app.add_option("--data", options.data, "Folder with corpus.jsonl, queries.jsonl, qrels.tsv, each plain or .zst")
      ->required();
  app.add_option("--limit", options.limit, "At most this many questions, drawn with --seed")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option("--seed", options.bootstrap.seed, "Of the questions drawn and of the intervals")
      ->capture_default_str();
  app.add_option("--resamples", options.bootstrap.resamples, "Bootstrap samples behind each 95 % interval")
      ->check(CLI::Range(10, 1000000))
      ->capture_default_str();
}

std::unique_ptr<Bank> open_eval_bank(const Common& common, const Model& model, const ShardDriver* ranks) {
  const char* const variable = std::getenv("MSA_BANK");
  if (!common.bank.empty() || (variable != nullptr && *variable != '\0')) {
    return open_bank(common, model, BankMode::kWrite);
  }
  if (ranks != nullptr) {
    throw Error("a run over several ranks needs a bank in a folder that all of them see", "--bank", "give --bank DIR");
  }
  std::cerr << "msa: no --bank: the corpus is encoded in memory, and again the next time\n";
  return Bank::in_memory(bank_shape(model.transformer()));
}

eval::BankReport encode_corpus(Context& context, const Model& model, Bank& bank, const BeirSet& set,
                               ShardDriver* ranks) {
  ProgressBar bar("encoding", static_cast<int64_t>(set.documents.size()), "docs");
  return eval::add_corpus(
      context, model, bank, set, [&](int64_t done, int64_t) { bar.update(done); }, ranks);
}

Json report_header(const std::string& task, const EvalOptions& options) {
  return {{"task", task},
          {"data", options.data},
          {"seed", options.bootstrap.seed},
          {"resamples", options.bootstrap.resamples},
          {"machine", cpu_summary()}};
}

Json to_json(const eval::BankReport& bank) {
  return {{"documents", bank.documents}, {"chunks", bank.chunks}, {"tokens", bank.tokens},
          {"bytes", bank.bytes},         {"encoded", bank.added}, {"encode_ms", bank.encode_ms}};
}

Json to_json(const Model& model) { return {{"model", model.directory()}, {"model_fingerprint", model.fingerprint()}}; }

void print_metrics(const std::string& label, const Json& metrics) {
  std::cout << fmt::format("{:10}", label);
  for (const auto& [name, estimate] : metrics.items()) {
    const auto& interval = estimate["interval"];
    std::cout << fmt::format("  {} {:.3f} [{:.3f} {:.3f}]", name, estimate["value"].get<double>(),
                             interval[0].get<double>(), interval[1].get<double>());
  }
  std::cout << '\n';
}

void register_eval(CLI::App& app, Common& common, Command& command) {
  CLI::App* eval = app.add_subcommand("eval", "Measure retrieval and answers on question sets");
  eval->require_subcommand(1);
  register_eval_retrieval(*eval, common, command);
  register_eval_qa(*eval, common, command);
  register_eval_niah(*eval, common, command);
  register_eval_scale(*eval, common, command);
}

}  // namespace msa::cli
