#include <iostream>

#include "cli/commands.h"

namespace msa::cli {
namespace {

int run(const Common& common, int64_t offset, int64_t limit) {
  const auto bank = open_any_bank(common, BankMode::kRead);
  Json documents = Json::array();
  for (const DocumentRecord& d : bank->list(offset, limit)) {
    if (!common.json) {
      std::cout << d.id << '\t' << d.n_tokens << " tokens\t" << d.created << '\t' << one_line(d.external_id, 120)
                << '\n';
      continue;
    }
    documents.push_back({{"id", d.id},
                         {"external_id", d.external_id},
                         {"version", d.version},
                         {"namespace", d.name_space},
                         {"metadata", Json::parse(d.metadata_json.empty() ? "{}" : d.metadata_json)},
                         {"tokens", d.n_tokens},
                         {"chunks", d.n_chunks},
                         {"bytes", d.text_bytes},
                         {"hash", d.content_hash},
                         {"created", d.created}});
  }
  if (common.json) print_json({{"documents", documents}, {"total", bank->size()}});
  return 0;
}

}  // namespace

void register_ls(CLI::App& app, Common& common, Command& command) {
  CLI::App* ls = app.add_subcommand("ls", "List the documents of a bank");
  add_bank_option(*ls, common);
  add_json_option(*ls, common);
  auto range = std::make_shared<std::pair<int64_t, int64_t>>(0, -1);
  ls->add_option("--offset", range->first, "Skip this many documents")->check(CLI::NonNegativeNumber);
  ls->add_option("--limit", range->second, "At most this many documents");
  ls->callback(
      [&common, &command, range] { command = [&common, range] { return run(common, range->first, range->second); }; });
}

}  // namespace msa::cli
