#include <fmt/format.h>

#include <iostream>
#include <memory>

#include "comm/communicator.h"
#include "core/interrupt.h"
#include "train/commands/commands.h"
#include "train/trainer.h"

namespace msa::train {
namespace {

int run(const std::string& path) {
  install_interrupt_handler();
  const auto communicator = communicator_from_environment();
  Trainer trainer(read_recipe(path), *communicator);
  const RunResult result = trainer.run(interrupted);
  const bool talks = communicator->rank() == 0;
  switch (result.end) {
    case RunEnd::kFinished:
      if (talks) std::cerr << fmt::format("finished after {} steps\n", result.step);
      return 0;
    case RunEnd::kTimeLimit:
      if (talks) std::cerr << fmt::format("time limit after {} steps; the same command goes on\n", result.step);
      return 0;
    case RunEnd::kInterrupted:
      if (talks) std::cerr << fmt::format("interrupted after {} steps, saved; the same command goes on\n", result.step);
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
