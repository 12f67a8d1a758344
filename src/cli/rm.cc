#include <iostream>
#include <vector>

#include "cli/commands.h"

namespace msa::cli {
namespace {

int run(const Common& common, const std::vector<DocumentId>& ids) {
  const auto bank = open_any_bank(common, BankMode::kWrite);
  Json removed = Json::array(), missing = Json::array();
  for (const DocumentId id : ids) (bank->remove(id) ? removed : missing).push_back(id);
  if (common.json) {
    print_json({{"removed", removed}, {"not_found", missing}});
  } else {
    for (const auto& id : removed) std::cout << "removed " << id << '\n';
  }
  for (const auto& id : missing) std::cerr << "msa: document " << id << ": not in the bank (fix: msa ls)\n";
  return missing.empty() ? 0 : 1;
}

}  // namespace

void register_rm(CLI::App& app, Common& common, Command& command) {
  CLI::App* rm = app.add_subcommand("rm", "Remove documents by id");
  auto ids = std::make_shared<std::vector<DocumentId>>();
  rm->add_option("ID", *ids, "Document ids, as `msa ls` shows them")->required();
  add_bank_option(*rm, common);
  add_json_option(*rm, common);
  rm->callback([&common, &command, ids] { command = [&common, ids] { return run(common, *ids); }; });
}

}  // namespace msa::cli
