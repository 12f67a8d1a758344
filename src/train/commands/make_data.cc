#include "train/make_data/make_data.h"

#include <fmt/format.h>
#include <unistd.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/interrupt.h"
#include "train/commands/commands.h"

namespace msa::train {
namespace {

struct Options {
  MakeDataOptions make;
  bool json = false;
};

void show(std::string_view stage, int64_t done, int64_t total) {
  if (interrupted()) throw Error("interrupted, nothing was written", "make-data", "run the same command again");
  if (isatty(2) != 0) std::cerr << fmt::format("\r{:40} {}/{}   ", stage, done, total) << std::flush;
}

int run(const Options& o) {
  install_interrupt_handler();
  const MakeDataReport r = make_data(o.make, show);
  if (isatty(2) != 0) std::cerr << '\n';
  if (!o.json) {
    std::cout << fmt::format("{} documents ({} changed), {} tables\n", r.documents, r.changed_documents, r.tables);
    for (size_t i = 0; i < kQuestionKinds; ++i) {
      std::cout << fmt::format("  {:14} {:8} questions of {} possible\n", kQuestionKindNames[i], r.kept[i], r.made[i]);
    }
    std::cout << fmt::format("  {} hard negatives\n", r.hard_negatives);
    return 0;
  }
  nlohmann::ordered_json kinds = nlohmann::ordered_json::object();
  for (size_t i = 0; i < kQuestionKinds; ++i) {
    kinds[kQuestionKindNames[i]] = {{"kept", r.kept[i]}, {"possible", r.made[i]}};
  }
  std::cout << nlohmann::ordered_json{{"documents", r.documents},
                                      {"changed_documents", r.changed_documents},
                                      {"tables", r.tables},
                                      {"questions", kinds},
                                      {"hard_negatives", r.hard_negatives}}
                   .dump(2)
            << '\n';
  return 0;
}

}  // namespace

void register_make_data(CLI::App& app, Command& command) {
  CLI::App* c = app.add_subcommand("make-data", "Make training questions from a corpus without any");
  auto o = std::make_shared<Options>();
  c->add_option("CORPUS", o->make.corpus, "BEIR folder; only its corpus and tables are read")->required();
  c->add_option("OUTPUT", o->make.output, "BEIR folder to write")->required();
  const char* flags[kQuestionKinds] = {"--inverse-cloze", "--fill-in", "--title", "--link", "--bridge"};
  for (size_t i = 0; i < kQuestionKinds; ++i) {
    c->add_option(flags[i], o->make.most[i], "At most so many questions of this kind; -1: all, 0: none")
        ->check(CLI::Range(int64_t{-1}, int64_t{1} << 40))
        ->capture_default_str();
  }
  c->add_option("--removed-share", o->make.removed_share,
                "Share of inverse-cloze sentences taken out of their document")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  c->add_option("--hard-negatives", o->make.hard_negatives, "BM25 documents that are wrong, a question")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  c->add_option("--limit-documents", o->make.limit_documents, "Only the first so many documents; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c->add_option("--seed", o->make.seed, "The same seed gives the same bytes")->capture_default_str();
  c->add_option("--threads", o->make.threads, "Threads (default: all CPUs)")->check(CLI::Range(0, 1024));
  c->add_flag("--json", o->json, "Print one JSON object");
  c->callback([&command, o] { command = [o] { return run(*o); }; });
}

}  // namespace msa::train
