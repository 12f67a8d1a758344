// msa-train: trains Memory Sparse Attention onto a language model.
#include <exception>
#include <iostream>

#include "core/log.h"
#include "train/commands/commands.h"

int main(int argc, char** argv) {
  using namespace msa::train;
  CLI::App app{"msa-train: teaches a language model to route to documents and to read them from compressed content."};
  app.require_subcommand(1);
  app.set_version_flag("--version", MSA_VERSION);
  std::string log_level = "info";
  app.add_option("--log-level", log_level, "debug, info, warn, error or off")->capture_default_str();
  Command command;
  register_run(app, command);
  register_make_data(app, command);
  register_conformance(app, command);
  register_bench(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    msa::set_log_level(log_level);
    return command();
  } catch (const std::exception& e) {
    std::cerr << "msa-train: " << e.what() << std::endl;
    return 1;
  }
}
