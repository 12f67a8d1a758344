// The subcommands of `msa-train`, one file each. Results go to stdout, everything else to stderr.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>

namespace msa::train {

/// Result of a subcommand: the program's exit code (0 ok, 1 failed).
using Command = std::function<int()>;

// Each registers its subcommand and stores what to run in `command` when it is chosen.
void register_run(CLI::App& app, Command& command);
void register_make_data(CLI::App& app, Command& command);
void register_conformance(CLI::App& app, Command& command);
void register_bench(CLI::App& app, Command& command);

}  // namespace msa::train
