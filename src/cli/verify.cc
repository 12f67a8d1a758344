#include <iostream>
#include <utility>

#include "cli/commands.h"
#include "cli/progress.h"

namespace msa::cli {
namespace {

/// Encodes damaged documents anew; returns their ids and what cannot be repaired.
Bank::Repair repair(const Common& common) {
  Context context(common.threads);
  const Model model = load_model(context, common);
  const BankShape shape = bank_shape(model.transformer());
  Encoder encoder(model.transformer(), shape.dtype);
  return Bank::repair(bank_path(common), shape, [&](DocumentId id, const std::string& text) {
    const auto document = model.prompts().document(id, model.tokenizer().encode(text)).tokens;
    return std::move(encoder.encode(context, {&document, 1})[0]);
  });
}

std::vector<std::string> examine(const Common& common) {
  ProgressBar bar("verifying", 0, "B");
  return Bank::verify(bank_path(common), [&](int64_t done, int64_t total) {
    bar.set_total(total);
    bar.update(done);
  });
}

int run(const Common& common, bool with_repair) {
  std::vector<std::string> problems = examine(common);
  Bank::Repair repaired;
  if (with_repair && !problems.empty()) {
    for (const std::string& p : problems) std::cerr << "msa: " << p << '\n';
    repaired = repair(common);
    problems = examine(common);
  }
  if (common.json) {
    print_json({{"ok", problems.empty()},
                {"problems", problems},
                {"reencoded", repaired.reencoded},
                {"beyond_repair", repaired.beyond_repair}});
  } else {
    if (!repaired.reencoded.empty()) {
      std::cout << "encoded " << repaired.reencoded.size() << " damaged documents anew from their text\n";
    }
    if (problems.empty()) std::cout << "every checksum and reference holds\n";
  }
  for (const std::string& p : repaired.beyond_repair) std::cerr << "msa: " << p << '\n';
  for (const std::string& p : problems) std::cerr << "msa: " << p << '\n';
  return problems.empty() ? 0 : 1;
}

}  // namespace

void register_verify(CLI::App& app, Common& common, Command& command) {
  CLI::App* verify = app.add_subcommand("verify", "Check every checksum and reference of a bank");
  auto with_repair = std::make_shared<bool>(false);
  verify->add_flag("--repair", *with_repair, "Encode damaged documents anew from their text");
  add_model_options(*verify, common);
  add_bank_option(*verify, common);
  add_json_option(*verify, common);
  verify->callback(
      [&common, &command, with_repair] { command = [&common, with_repair] { return run(common, *with_repair); }; });
}

}  // namespace msa::cli
