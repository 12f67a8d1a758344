#include <fmt/format.h>

#include <iostream>

#include "cli/commands.h"
#include "cli/progress.h"

namespace msa::cli {
namespace {

int run(const Common& common) {
  const auto bank = open_any_bank(common, BankMode::kWrite);
  ProgressBar bar("compacting", 0, "B");
  const CompactionResult r = bank->compact([&](int64_t done, int64_t total) {
    bar.set_total(total);
    bar.update(done);
  });
  bar.finish();
  if (common.json) {
    print_json({{"documents_forgotten", r.documents_forgotten},
                {"segments", {{"before", r.segments_before}, {"after", r.segments_after}}},
                {"bytes", {{"before", r.bytes_before}, {"after", r.bytes_after}}}});
    return 0;
  }
  std::cout << fmt::format("forgot {} removed documents; {} segments became {}, {:.1f} MiB became {:.1f}\n",
                           r.documents_forgotten, r.segments_before, r.segments_after,
                           static_cast<double>(r.bytes_before) / (1 << 20),
                           static_cast<double>(r.bytes_after) / (1 << 20));
  return 0;
}

}  // namespace

void register_compact(CLI::App& app, Common& common, Command& command) {
  CLI::App* compact = app.add_subcommand("compact", "Take removed documents and former versions off the disk");
  add_bank_option(*compact, common);
  add_json_option(*compact, common);
  compact->callback([&common, &command] { command = [&common] { return run(common); }; });
}

}  // namespace msa::cli
