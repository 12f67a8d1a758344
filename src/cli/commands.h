// The subcommands of `msa`, one file each. Results go to stdout, everything else to stderr.
#pragma once
#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "bank/bank.h"
#include "engine/encoder.h"
#include "engine/generator.h"
#include "engine/model.h"

namespace msa {
class Exchange;
class ShardDriver;
}  // namespace msa

namespace msa::cli {

using Json = nlohmann::ordered_json;

/// Options that many subcommands share.
struct Common {
  std::string model;                  // --model, else MSA_MODEL, else the default model
  std::string bank;                   // --bank, else MSA_BANK, else ./memory
  std::string dtype = "auto";         // --dtype
  std::string device;                 // --device, else MSA_DEVICE, else cpu
  std::string routing_keys = "auto";  // --routing-keys
  int64_t gpu_memory = 0;             // --gpu-memory: bytes
  std::string log_level = "info";
  int threads = 0;                // --threads; 0: all
  bool for_all_ranks = false;     // the subcommand takes part in a run over several
  bool degraded = false;          // --degraded
  int rank_timeout = 120;         // --rank-timeout: seconds
  std::string exchange = "auto";  // --exchange
  bool json = false;              // --json
};

/// The ranks of this run, as mpirun started them; rank 0 alone prints.
class Ranks {
 public:
  explicit Ranks(const Common& common);
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  bool is_one() const { return exchange_ == nullptr; }
  bool is_driver() const;
  /// Of rank 0: null in a run of one process. The context is the one that questions run on.
  ShardDriver* driver(Context& context);
  /// As the ranks exchange for this context; null in a run of one process. All ranks must call it, or driver() on rank
  /// 0 and serve() on the others.
  Exchange* exchange(Context& context);
  /// What the other ranks do, until rank 0 has ended; the exit code. `encodes`: with the model. `patience`: how long
  /// rank 0 may say nothing.
  int serve(bool encodes = false, std::chrono::milliseconds patience = std::chrono::minutes(30));

 private:
  const Common& common_;
  std::unique_ptr<Exchange> exchange_;
  bool has_met_ = false;  // the ranks have agreed how to exchange
  std::unique_ptr<ShardDriver> driver_;
};

/// Patience of ranks whose rank 0 waits for people: the launcher ends them when it is gone.
constexpr std::chrono::milliseconds kForAsLongAsItTakes = std::chrono::hours(24 * 365);

/// Result of a subcommand: the program's exit code (0 ok, 1 failed). Bad usage (2) is CLI11's and Error's to raise.
using Command = std::function<int()>;

void add_model_options(CLI::App& app, Common& common);
void add_device_option(CLI::App& app, Common& common);
/// How a bank uses a GPU: --routing-keys, --gpu-memory.
void add_device_bank_options(CLI::App& app, Common& common);
DeviceOptions device_options(const Common& common);
/// A run over several ranks, in which the subcommand then takes part: --degraded, --rank-timeout.
void add_rank_options(CLI::App& app, Common& common);
/// What a degraded answer lacks, for people.
std::string describe_missing(const MissingShare& missing);
void add_bank_option(CLI::App& app, Common& common);
void add_json_option(CLI::App& app, Common& common);
void add_scope_options(CLI::App& app, DocumentScope& scope);
/// How much is routed, read and written for an answer.
void add_answer_options(CLI::App& app, AskOptions& ask);

std::string bank_path(const Common& common);
/// Opens the bank whatever model it belongs to. Throws Error when there is none.
std::unique_ptr<Bank> open_any_bank(const Common& common, BankMode mode);
/// Opens the bank of this model; throws Error when it belongs to another one, or (kRead) is not there.
std::unique_ptr<Bank> open_bank(const Common& common, const Model& model, BankMode mode);
/// Where the model runs: --threads and --device, shared with this host's other ranks where the subcommand is for all.
/// Throws Error where the device cannot be used.
Context make_context(const Common& common);
/// Of one of a host's ranks: GPU number `rank` for cuda, a share of the processors.
Context make_context(const Common& common, int rank, int ranks);
Model load_model(Context& context, const Common& common);

void print_json(const Json& value);
/// Text without control characters, at most `limit` bytes, cut at a character: for one line on a terminal.
std::string one_line(std::string_view text, size_t limit);
std::string utc_now();  // "2026-01-31T12:34:56Z"
double ms_since(std::chrono::steady_clock::time_point start);

// Each registers its subcommand and stores what to run in `command` when it is chosen.
void register_add(CLI::App& app, Common& common, Command& command);
void register_rm(CLI::App& app, Common& common, Command& command);
void register_ls(CLI::App& app, Common& common, Command& command);
void register_show(CLI::App& app, Common& common, Command& command);
void register_stat(CLI::App& app, Common& common, Command& command);
void register_verify(CLI::App& app, Common& common, Command& command);
void register_compact(CLI::App& app, Common& common, Command& command);
void register_export(CLI::App& app, Common& common, Command& command);
void register_import(CLI::App& app, Common& common, Command& command);
void register_reencode(CLI::App& app, Common& common, Command& command);
void register_ask(CLI::App& app, Common& common, Command& command);
void register_route(CLI::App& app, Common& common, Command& command);
void register_convert(CLI::App& app, Common& common, Command& command);
void register_conformance(CLI::App& app, Common& common, Command& command);
void register_bench(CLI::App& app, Common& common, Command& command);
void register_eval(CLI::App& app, Common& common, Command& command);
void register_serve(CLI::App& app, Common& common, Command& command);

}  // namespace msa::cli
