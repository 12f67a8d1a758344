#include <iostream>
#include <optional>
#include <vector>

#include "cli/commands.h"
#include "cli/progress.h"

namespace msa::cli {
namespace {

struct Options {
  std::vector<DocumentId> ids;
  bool now = false;
};

/// What `rm --now` did: enough to show later which content left the bank and that nothing else did.
Json forget(Bank& bank, const std::vector<DocumentId>& ids) {
  Json receipt, documents = Json::array();
  for (const DocumentId id : ids) {
    if (const auto d = bank.find(id)) {
      documents.push_back({{"id", d->id},
                           {"external_id", d->external_id},
                           {"namespace", d->name_space},
                           {"hash", d->content_hash},
                           {"created", d->created}});
    }
  }
  receipt["bank"] = bank.path().string();
  receipt["documents"] = documents;
  receipt["fingerprint_before"] = bank.fingerprint();
  bank.remove(ids);
  ProgressBar bar("compacting", 0, "B");
  const CompactionResult result = bank.compact([&](int64_t done, int64_t total) {
    bar.set_total(total);
    bar.update(done);
  });
  bar.finish();
  receipt["fingerprint_after"] = bank.fingerprint();
  receipt["documents_forgotten"] = result.documents_forgotten;  // those removed earlier too
  receipt["bytes_freed"] = result.bytes_before - result.bytes_after;
  receipt["time"] = utc_now();
  return receipt;
}

int run(const Common& common, const Options& o) {
  const auto bank = open_any_bank(common, BankMode::kWrite);
  Json missing = Json::array();
  std::vector<DocumentId> present;
  for (const DocumentId id : o.ids) {
    if (bank->find(id)) {
      present.push_back(id);
    } else {
      missing.push_back(id);
    }
  }
  Json out = {{"removed", present}, {"not_found", missing}};
  if (o.now) {
    out["receipt"] = forget(*bank, present);
  } else {
    bank->remove(present);
  }
  if (common.json) {
    print_json(out);
  } else {
    for (const DocumentId id : present) std::cout << "removed " << id << '\n';
    if (o.now) print_json(out["receipt"]);
  }
  for (const auto& id : missing) std::cerr << "msa: document " << id << ": not in the bank (fix: msa ls)\n";
  return missing.empty() ? 0 : 1;
}

}  // namespace

void register_rm(CLI::App& app, Common& common, Command& command) {
  CLI::App* rm = app.add_subcommand("rm", "Remove documents by id");
  auto o = std::make_shared<Options>();
  rm->add_option("ID", o->ids, "Document ids, as `msa ls` shows them")->required();
  rm->add_flag("--now", o->now, "Also take their text and vectors off the disk, and print a receipt");
  add_bank_option(*rm, common);
  add_json_option(*rm, common);
  rm->callback([&common, &command, o] { command = [&common, o] { return run(common, *o); }; });
}

}  // namespace msa::cli
