#include <fmt/format.h>

#include <iostream>

#include "cli/commands.h"

namespace msa::cli {
namespace {

int run(const Common& common) {
  const auto bank = open_any_bank(common, BankMode::kRead);
  const BankStatistics s = bank->statistics();
  const BankShape& shape = bank->shape();
  if (common.json) {
    print_json({{"bank", bank->path().string()},
                {"fingerprint", shape.fingerprint},
                {"dtype", traits(shape.dtype).name},
                {"routing_layers", shape.routing_layers},
                {"chunk_tokens", shape.chunk_tokens},
                {"documents", s.documents},
                {"deleted", s.deleted},
                {"chunks", s.chunks},
                {"tokens", s.tokens},
                {"segments", s.segments},
                {"bytes", {{"text", s.text_bytes}, {"keys", s.key_bytes}, {"content", s.content_bytes}}}});
    return 0;
  }
  const auto mib = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  std::cout << fmt::format(
      "bank       {}\nmodel      {}\ndocuments  {} ({} removed, not yet compacted)\ntokens     {} in {} chunks of {}\n"
      "segments   {}\ntext       {:.1f} MiB\nkeys       {:.1f} MiB ({}, {} layers)\ncontent    {:.1f} MiB\n",
      bank->path().string(), shape.fingerprint, s.documents, s.deleted, s.tokens, s.chunks, shape.chunk_tokens,
      s.segments, mib(s.text_bytes), mib(s.key_bytes), traits(shape.dtype).name, shape.n_layers(),
      mib(s.content_bytes));
  return 0;
}

}  // namespace

void register_stat(CLI::App& app, Common& common, Command& command) {
  CLI::App* stat = app.add_subcommand("stat", "Size and shape of a bank");
  add_bank_option(*stat, common);
  add_json_option(*stat, common);
  stat->callback([&common, &command] { command = [&common] { return run(common); }; });
}

}  // namespace msa::cli
