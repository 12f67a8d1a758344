// What the subcommands of `msa eval` share.
#pragma once
#include <span>
#include <string>

#include "cli/commands.h"
#include "eval/corpus_bank.h"
#include "eval/score_table.h"

namespace msa::cli {

struct EvalOptions {
  std::string data;           // --data: folder of a BEIR collection
  std::string run_in;         // --documents-from: a TREC run
  int64_t limit = -1;         // --limit: questions
  eval::Bootstrap bootstrap;  // --seed, --resamples; the seed draws the questions of --limit too
};

void add_eval_options(CLI::App& app, EvalOptions& options);

/// --bank or MSA_BANK, created where it is missing; in memory without either, and a word about that on stderr.
/// With ranks it must be a folder.
std::unique_ptr<Bank> open_eval_bank(const Common& common, const Model& model, const ShardDriver* ranks = nullptr);

/// add_corpus under a progress bar.
eval::BankReport encode_corpus(Context& context, const Model& model, Bank& bank, const BeirSet& set,
                               ShardDriver* ranks = nullptr);

/// What every report begins with: task, data, seed, machine.
Json report_header(const std::string& task, const EvalOptions& options);
Json to_json(const eval::BankReport& bank);
/// {"model": directory, "model_fingerprint": what its banks are marked with}
Json to_json(const Model& model);

/// One line of a table: the label, then each metric of {"name": {"value", "interval"}} as "name .812 ±.021".
void print_metrics(const std::string& label, const Json& metrics);

// Each registers its subcommand of `eval`.
void register_eval_retrieval(CLI::App& eval, Common& common, Command& command);
void register_eval_qa(CLI::App& eval, Common& common, Command& command);
void register_eval_niah(CLI::App& eval, Common& common, Command& command);
void register_eval_scale(CLI::App& eval, Common& common, Command& command);

}  // namespace msa::cli
