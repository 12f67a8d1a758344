#include <fmt/format.h>

#include <iostream>
#include <unordered_map>
#include <vector>

#include "bank/shard.h"
#include "cli/commands.h"
#include "comm/launcher.h"

namespace msa::cli {
namespace {

/// What a rank of this run would hold.
struct Share {
  int64_t documents = 0, chunks = 0, tokens = 0;  // live
  int64_t key_bytes = 0, content_bytes = 0;       // removed documents included
};

/// By rank; empty in a run of one process. The parts follow from the snapshot and their number, so the other ranks need
/// not be asked.
std::vector<Share> shares_of(const Bank& bank) {
  const int ranks = launched_size();
  if (ranks == 1) return {};
  std::unordered_map<DocumentId, int64_t> tokens;
  for (const DocumentRecord& d : bank.list()) tokens.emplace(d.id, d.n_tokens);
  const std::shared_ptr<const Snapshot> snapshot = bank.snapshot();
  std::vector<Share> shares;
  for (const SlotRange& range : shard_ranges(*snapshot, ranks)) {
    const auto part = part_of(*snapshot, range);
    Share& share = shares.emplace_back();
    share.documents = part->n_documents();
    share.chunks = part->n_chunks();
    for (size_t s = 0; s < part->segments.size(); ++s) {
      const Segment& segment = *part->segments[s];
      share.key_bytes += segment.n_chunks() * bank.shape().row_bytes() * bank.shape().n_layers();
      for (size_t i = 0; i < part->live[s].size(); ++i) {
        const auto found = tokens.find(segment.ids()[i]);
        if (part->live[s][i] != 0 && found != tokens.end()) share.tokens += found->second;
      }
    }
    share.content_bytes = 2 * share.key_bytes;
  }
  return shares;
}

double mib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

Json to_json(const std::vector<Share>& shares) {
  Json list = Json::array();
  for (const Share& s : shares) {
    list.push_back({{"rank", list.size()},
                    {"documents", s.documents},
                    {"chunks", s.chunks},
                    {"tokens", s.tokens},
                    {"bytes", {{"keys", s.key_bytes}, {"content", s.content_bytes}}}});
  }
  return list;
}

void print(const std::vector<Share>& shares) {
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    const Share& s = shares[rank];
    std::cout << fmt::format("rank {:<5} {} documents, {} tokens in {} chunks, keys {:.1f} MiB, content {:.1f} MiB\n",
                             rank, s.documents, s.tokens, s.chunks, mib(s.key_bytes), mib(s.content_bytes));
  }
}

int run(const Common& common) {
  const auto bank = open_any_bank(common, BankMode::kRead);
  const BankStatistics s = bank->statistics();
  const BankShape& shape = bank->shape();
  const std::vector<Share> shares = shares_of(*bank);
  if (common.json) {
    Json out = {{"bank", bank->path().string()},
                {"fingerprint", shape.fingerprint},
                {"dtype", traits(shape.dtype).name},
                {"routing_layers", shape.routing_layers},
                {"chunk_tokens", shape.chunk_tokens},
                {"documents", s.documents},
                {"deleted", s.deleted},
                {"chunks", s.chunks},
                {"tokens", s.tokens},
                {"segments", s.segments},
                {"bytes", {{"text", s.text_bytes}, {"keys", s.key_bytes}, {"content", s.content_bytes}}}};
    if (!shares.empty()) out["ranks"] = to_json(shares);
    print_json(out);
    return 0;
  }
  std::cout << fmt::format(
      "bank       {}\nmodel      {}\ndocuments  {} ({} removed, not yet compacted)\ntokens     {} in {} chunks of {}\n"
      "segments   {}\ntext       {:.1f} MiB\nkeys       {:.1f} MiB ({}, {} layers)\ncontent    {:.1f} MiB\n",
      bank->path().string(), shape.fingerprint, s.documents, s.deleted, s.tokens, s.chunks, shape.chunk_tokens,
      s.segments, mib(s.text_bytes), mib(s.key_bytes), traits(shape.dtype).name, shape.n_layers(),
      mib(s.content_bytes));
  print(shares);
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
