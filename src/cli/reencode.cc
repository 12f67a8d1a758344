#include <fmt/format.h>

#include <filesystem>
#include <iostream>

#include "cli/commands.h"
#include "cli/progress.h"
#include "core/interrupt.h"
#include "engine/bank_writer.h"
#include "engine/shard_driver.h"

namespace msa::cli {
namespace {

constexpr int64_t kCommitTokens = 128 << 10;
constexpr int64_t kPage = 1024;

/// Copies the documents of one bank into another, encoded by another model under the ids they have.
class Reencoder {
 public:
  Reencoder(Context& context, const Model& model, const Bank& from, Bank& to, ShardDriver* ranks)
      : model_(model),
        from_(from),
        to_(to),
        writer_(context, model, to, ranks),
        commit_tokens_(kCommitTokens * (ranks == nullptr ? 1 : ranks->size())) {}

  void run() {
    ProgressBar bar("encoding", from_.size(), "docs");
    for (int64_t offset = 0; !interrupted(); offset += kPage) {
      const std::vector<DocumentRecord> page = from_.list(offset, kPage);
      if (page.empty()) break;
      for (const DocumentRecord& listed : page) {
        if (interrupted()) break;
        bar.advance(1);
        if (to_.has_id(listed.id)) {
          ++kept_;
          continue;
        }
        if (const auto record = from_.find(listed.id)) take(*record);
      }
    }
    commit();
  }
  int64_t encoded() const { return encoded_; }
  int64_t kept() const { return kept_; }
  const std::vector<DocumentId>& without_text() const { return without_text_; }

 private:
  void take(const DocumentRecord& r) {
    if (!r.has_text) {
      without_text_.push_back(r.id);
      return;
    }
    ids_.push_back(r.id);
    inputs_.push_back({r.text, r.external_id, r.name_space, r.metadata_json});
    tokens_.push_back(model_.prompts().document(r.id, model_.tokenizer().encode(r.text)).tokens);
    pending_ += static_cast<int64_t>(tokens_.back().size());
    if (pending_ >= commit_tokens_) commit();
  }

  void commit() {
    if (ids_.empty()) return;
    to_.skip_ids_below(ids_.back() + 1);
    if (!writer_.add(ids_, inputs_, tokens_).committed()) {
      throw Error("the new bank has other documents under the same external ids", to_.path().string(),
                  "name a new folder");
    }
    encoded_ += static_cast<int64_t>(ids_.size());
    ids_.clear();
    inputs_.clear();
    tokens_.clear();
    pending_ = 0;
  }

  const Model& model_;
  const Bank& from_;
  Bank& to_;
  BankWriter writer_;
  int64_t commit_tokens_;
  std::vector<DocumentId> ids_, without_text_;
  std::vector<DocumentInput> inputs_;
  std::vector<DocumentTokens> tokens_;
  int64_t pending_ = 0, encoded_ = 0, kept_ = 0;
};

int run(const Common& common, const std::string& target) {
  install_interrupt_handler();
  Ranks ranks(common);
  if (!ranks.is_driver()) return ranks.serve(/*encodes=*/true);
  Context context = make_context(common);
  const Model model = load_model(context, common);
  const auto from = open_any_bank(common, BankMode::kRead);
  std::error_code ignored;
  if (std::filesystem::equivalent(from->path(), target, ignored)) {
    throw Error("the new bank is the old one", target, "name a new folder");
  }
  const auto to = Bank::create_or_open(target, bank_shape(model.transformer()), BankMode::kWrite);
  Reencoder reencoder(context, model, *from, *to, ranks.driver(context));
  reencoder.run();
  if (common.json) {
    print_json({{"bank", target},
                {"encoded", reencoder.encoded()},
                {"kept", reencoder.kept()},
                {"without_text", reencoder.without_text()},
                {"complete", !interrupted()}});
  } else {
    std::cout << fmt::format("encoded {} documents into {}; {} were there already\n", reencoder.encoded(), target,
                             reencoder.kept());
  }
  for (const DocumentId id : reencoder.without_text()) {
    std::cerr << "msa: document " << id << ": its text is not in the bank (skipped)\n";
  }
  if (interrupted()) std::cerr << "msa: interrupted; the same command goes on from here\n";
  return interrupted() || !reencoder.without_text().empty() ? 1 : 0;
}

}  // namespace

void register_reencode(CLI::App& app, Common& common, Command& command) {
  CLI::App* reencode = app.add_subcommand("reencode", "Make a bank for another model from the text of this one");
  auto target = std::make_shared<std::string>();
  reencode->add_option("--to", *target, "Folder of the new bank")->required();
  add_model_options(*reencode, common);
  add_rank_options(*reencode, common);
  add_bank_option(*reencode, common);
  add_json_option(*reencode, common);
  reencode->callback([&common, &command, target] { command = [&common, target] { return run(common, *target); }; });
}

}  // namespace msa::cli
