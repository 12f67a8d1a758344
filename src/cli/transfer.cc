// msa export and msa import.
#include "bank/transfer.h"

#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <optional>

#include "cli/commands.h"
#include "cli/progress.h"

namespace msa::cli {
namespace {

struct Options {
  std::string file;
  bool without_text = false;
};

int run_export(const Common& common, const Options& o) {
  const auto bank = open_any_bank(common, BankMode::kRead);
  ProgressBar bar("exporting", bank->size(), "docs");
  const ExportResult r = export_bank(*bank, o.file, !o.without_text, [&](int64_t done, int64_t) { bar.update(done); });
  bar.finish();
  if (common.json) {
    print_json({{"file", o.file}, {"documents", r.documents}, {"bytes", r.bytes}, {"text", !o.without_text}});
  } else {
    std::cout << fmt::format("{}: {} documents, {:.1f} MiB\n", o.file, r.documents,
                             static_cast<double>(r.bytes) / (1 << 20));
  }
  return 0;
}

/// The model is loaded when the first document needs another id.
class LazyEncoder {
 public:
  explicit LazyEncoder(const Common& common) : common_(common) {}
  EncodedDocument encode(DocumentId id, const std::string& text) {
    load();
    const auto document = model_->prompts().document(id, model_->tokenizer().encode(text)).tokens;
    Encoder encoder(model_->transformer(), bank_shape(model_->transformer()).dtype);
    return std::move(encoder.encode(*context_, {&document, 1})[0]);
  }
  const std::string& fingerprint() {
    load();
    return model_->fingerprint();
  }

 private:
  void load() {
    if (model_) return;
    context_.emplace(common_.threads);
    model_.emplace(load_model(*context_, common_));
  }

  const Common& common_;
  std::optional<Context> context_;
  std::optional<Model> model_;
};

int run_import(const Common& common, const Options& o) {
  const BankShape shape = ExportReader(o.file).shape();
  const auto bank = Bank::create_or_open(bank_path(common), shape, BankMode::kWrite);
  LazyEncoder encoder(common);
  const Bank::Reencode reencode = [&](DocumentId id, const std::string& text) {
    if (encoder.fingerprint() != shape.fingerprint) {
      throw Error("some documents need another id, and this model (" + encoder.fingerprint() + ") is not the bank's (" +
                      shape.fingerprint + ")",
                  o.file, "give the bank's model: --model DIR");
    }
    return encoder.encode(id, text);
  };
  ProgressBar bar("importing", 0, "docs");
  const ImportResult r = import_file(*bank, o.file, reencode, [&](int64_t done, int64_t total) {
    bar.set_total(total);
    bar.update(done);
  });
  bar.finish();
  if (common.json) {
    Json moved = Json::array();
    for (const auto& [from, to] : r.reencoded) moved.push_back({{"from", from}, {"to", to}});
    print_json({{"kept", r.kept}, {"reencoded", moved}, {"unchanged", r.unchanged}, {"conflicts", r.conflicts}});
  } else {
    std::cout << fmt::format(
        "added {} documents under their ids, {} encoded anew because their ids were taken; {} were "
        "there already\n",
        r.kept.size(), r.reencoded.size(), r.unchanged);
  }
  for (const std::string& name : r.conflicts) {
    std::cerr << "msa: " << one_line(name, 80) << ": the bank has another text under this external id (skipped)\n";
  }
  return r.conflicts.empty() ? 0 : 1;
}

}  // namespace

void register_export(CLI::App& app, Common& common, Command& command) {
  CLI::App* sub = app.add_subcommand("export", "Write a bank into one file");
  auto o = std::make_shared<Options>();
  sub->add_option("FILE", o->file, "The file to write")->required();
  sub->add_flag("--without-text", o->without_text, "Leave the text out; the vectors still answer");
  add_bank_option(*sub, common);
  add_json_option(*sub, common);
  sub->callback([&common, &command, o] { command = [&common, o] { return run_export(common, *o); }; });
}

void register_import(CLI::App& app, Common& common, Command& command) {
  CLI::App* sub = app.add_subcommand("import", "Add the documents of an exported file to a bank");
  auto o = std::make_shared<Options>();
  sub->add_option("FILE", o->file, "The file to read")->required();
  add_model_options(*sub, common);
  add_bank_option(*sub, common);
  add_json_option(*sub, common);
  sub->callback([&common, &command, o] { command = [&common, o] { return run_import(common, *o); }; });
}

}  // namespace msa::cli
