#include <iostream>

#include "cli/commands.h"
#include "cli/progress.h"

namespace msa::cli {
namespace {

int run(const Common& common) {
  const std::vector<std::string> problems = Bank::verify(bank_path(common));
  if (common.json) {
    print_json({{"ok", problems.empty()}, {"problems", problems}});
  } else if (problems.empty()) {
    std::cout << "every checksum and reference holds\n";
  }
  for (const std::string& p : problems) std::cerr << "msa: " << p << '\n';
  return problems.empty() ? 0 : 1;
}

}  // namespace

void register_verify(CLI::App& app, Common& common, Command& command) {
  CLI::App* verify = app.add_subcommand("verify", "Check every checksum and reference of a bank");
  add_bank_option(*verify, common);
  add_json_option(*verify, common);
  verify->callback([&common, &command] { command = [&common] { return run(common); }; });
}

}  // namespace msa::cli
