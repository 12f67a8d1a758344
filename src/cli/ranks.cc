// A run over several ranks: rank 0 does what the command says, the others hold their parts of the bank for it.
#include <fmt/format.h>

#include <optional>

#include "cli/commands.h"
#include "comm/device_exchange.h"
#include "comm/launcher.h"
#include "engine/shard_driver.h"
#include "engine/shard_server.h"

namespace msa::cli {
namespace {

/// NCCL's group ends with any of its ranks, so a run that is to survive the loss of one goes through the host.
DeviceTransport transport(const Common& common) {
  const DeviceTransport asked = parse_transport(common.exchange);
  if (common.degraded && asked == DeviceTransport::kNccl) {
    throw Error("NCCL does not go on without one of its ranks", "--degraded with --exchange nccl",
                "use --exchange host");
  }
  return common.degraded ? DeviceTransport::kHost : asked;
}

}  // namespace

void add_rank_options(CLI::App& app, Common& common) {
  app.preparse_callback([&common](size_t) { common.for_all_ranks = true; });
  app.add_flag("--degraded", common.degraded,
               "Under mpirun: when a rank fails, answer from the others and say what is missing");
  app.add_option("--rank-timeout", common.rank_timeout, "Under mpirun: seconds to wait for a rank's reply")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app.add_option("--exchange", common.exchange, "Under mpirun, between GPUs: nccl, host (by way of MPI), or auto")
      ->check(CLI::IsMember({"auto", "nccl", "host"}))
      ->capture_default_str();
}

Ranks::Ranks(const Common& common) : common_(common), exchange_(exchange_from_environment()) {}

Ranks::~Ranks() = default;

bool Ranks::is_driver() const { return exchange_ == nullptr || exchange_->rank() == 0; }

Exchange* Ranks::exchange(Context& context) {
  if (exchange_ != nullptr && !has_met_) {
    exchange_ = device_exchange(context, std::move(exchange_), transport(common_));
    has_met_ = true;
  }
  return exchange_.get();
}

ShardDriver* Ranks::driver(Context& context) {
  if (exchange(context) == nullptr) return nullptr;
  if (driver_ == nullptr) {
    const ShardOptions options{std::chrono::seconds(common_.rank_timeout), common_.degraded};
    driver_ = std::make_unique<ShardDriver>(*exchange_, options);
  }
  return driver_.get();
}

int Ranks::serve(bool encodes, std::chrono::milliseconds patience) {
  Context context = make_context(common_);
  std::optional<Model> model;
  if (encodes) model.emplace(load_model(context, common_));
  const Model* const loaded = model ? &*model : nullptr;
  ShardServer(context, *exchange(context), device_options(common_), loaded).serve(patience);
  return 0;
}

std::string describe_missing(const MissingShare& missing) {
  std::string text = fmt::format(
      "without {} of {} documents, {:.0f} % of the memory:", missing.documents, missing.of_documents,
      missing.of_chunks == 0 ? 0.0
                             : 100.0 * static_cast<double>(missing.chunks) / static_cast<double>(missing.of_chunks));
  for (const std::string& why : missing.why) text += " " + why + ";";
  text.pop_back();
  return text;
}

}  // namespace msa::cli
