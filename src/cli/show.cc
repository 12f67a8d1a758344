#include <iostream>

#include "cli/commands.h"

namespace msa::cli {
namespace {

int run(const Common& common, DocumentId id) {
  const auto bank = open_any_bank(common, BankMode::kRead);
  const auto d = bank->find(id);
  if (!d) throw Error("no such document", "document " + std::to_string(id), "msa ls lists the ids");
  if (common.json) {
    print_json({{"id", d->id},
                {"external_id", d->external_id},
                {"version", d->version},
                {"namespace", d->name_space},
                {"metadata", Json::parse(d->metadata_json.empty() ? "{}" : d->metadata_json)},
                {"tokens", d->n_tokens},
                {"chunks", d->n_chunks},
                {"hash", d->content_hash},
                {"created", d->created},
                {"text", d->text}});
    return 0;
  }
  std::cout << "id           " << d->id << "\nexternal id  " << d->external_id << "\ntokens       " << d->n_tokens
            << " in " << d->n_chunks << " chunks\nhash         " << d->content_hash << "\ncreated      " << d->created
            << "\n\n"
            << d->text << '\n';
  return 0;
}

}  // namespace

void register_show(CLI::App& app, Common& common, Command& command) {
  CLI::App* show = app.add_subcommand("show", "Show one document: its record and its text");
  auto id = std::make_shared<DocumentId>(0);
  show->add_option("ID", *id, "Document id, as `msa ls` shows it")->required();
  add_bank_option(*show, common);
  add_json_option(*show, common);
  show->callback([&common, &command, id] { command = [&common, id] { return run(common, *id); }; });
}

}  // namespace msa::cli
