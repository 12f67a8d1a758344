// msa: a memory for language models, inside their own attention.
#include <exception>
#include <iostream>

#include "cli/commands.h"
#include "comm/end_run.h"
#include "comm/launcher.h"
#include "core/log.h"

int main(int argc, char** argv) {
  using namespace msa::cli;
  CLI::App app{"msa: Memory Sparse Attention. Gives a language model a memory of documents inside its own attention."};
  app.require_subcommand(1);
  app.set_version_flag("--version", MSA_VERSION);
  Common common;
  app.add_option("--log-level", common.log_level, "debug, info, warn, error or off")->capture_default_str();
  Command command;
  register_add(app, common, command);
  register_rm(app, common, command);
  register_ls(app, common, command);
  register_show(app, common, command);
  register_stat(app, common, command);
  register_verify(app, common, command);
  register_compact(app, common, command);
  register_export(app, common, command);
  register_import(app, common, command);
  register_reencode(app, common, command);
  register_ask(app, common, command);
  register_route(app, common, command);
  register_convert(app, common, command);
  register_conformance(app, common, command);
  register_bench(app, common, command);
  register_eval(app, common, command);
  register_serve(app, common, command);
  bool is_first = false;
  try {
    // Of several ranks the first one speaks; it alone does what is not for all of them.
    is_first = msa::launched_rank() == 0;
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
      if (!is_first) return e.get_exit_code() == 0 ? 0 : 2;
      return app.exit(e) == 0 ? 0 : 2;
    }
    msa::set_log_level(common.log_level);
    if (common.for_all_ranks) return command();
    if (!is_first) return 0;
    if (msa::launched_size() > 1) spdlog::info("of {} ranks the first alone does this", msa::launched_size());
    return command();
  } catch (const std::exception& e) {
    std::cerr << "msa: " << e.what() << std::endl;
    if (is_first) msa::end_failed_run();
    return 1;
  }
}
