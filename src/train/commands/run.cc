#include <fmt/format.h>

#include <csignal>
#include <iostream>
#include <memory>

#include "train/commands/commands.h"
#include "train/trainer.h"

namespace msa::train {
namespace {

volatile std::sig_atomic_t stop_requested = 0;

void on_signal(int signal) {
  stop_requested = 1;
  std::signal(signal, SIG_DFL);  // the second one ends the program at once
}

int run(const std::string& path) {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  Trainer trainer(read_recipe(path));
  const RunResult result = trainer.run([] { return stop_requested != 0; });
  switch (result.end) {
    case RunEnd::kFinished: std::cerr << fmt::format("finished after {} steps\n", result.step); return 0;
    case RunEnd::kTimeLimit:
      std::cerr << fmt::format("time limit after {} steps; the same command goes on\n", result.step);
      return 0;
    case RunEnd::kInterrupted:
      std::cerr << fmt::format("interrupted after {} steps, saved; the same command goes on\n", result.step);
      return 1;
  }
  return 1;
}

}  // namespace

void register_run(CLI::App& app, Command& command) {
  CLI::App* c = app.add_subcommand("run", "Train as a recipe says; goes on where an earlier run of it stopped");
  auto path = std::make_shared<std::string>();
  c->add_option("RECIPE", *path, "A TOML file, see docs/training.md")->required();
  c->callback([&command, path] { command = [path] { return run(*path); }; });
}

}  // namespace msa::train
