#include <fmt/chrono.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <thread>

#include "cli/commands.h"
#include "comm/launcher.h"
#include "core/cpu.h"
#include "core/cuda.h"

namespace msa::cli {

void add_model_options(CLI::App& app, Common& common) {
  app.add_option("--model", common.model, "Model directory (default: $MSA_MODEL, else the default model)");
  app.add_option("--dtype", common.dtype, "Precision: auto, f32 or bf16")->capture_default_str();
  app.add_option("--threads", common.threads, "Threads (default: all CPUs)")->check(CLI::Range(0, 1024));
  add_device_option(app, common);
}

void add_device_option(CLI::App& app, Common& common) {
  app.add_option("--device", common.device,
                 "Where the model runs: cpu, cuda or cuda:N (default: $MSA_DEVICE, else cpu)");
}

void add_device_bank_options(CLI::App& app, Common& common) {
  app.add_option(
         "--routing-keys", common.routing_keys,
         "On a GPU: bf16, int8 (half the memory, the same documents), int4 (a quarter), or auto: the first that fits")
      ->check(CLI::IsMember({"auto", "bf16", "int8", "int4"}))
      ->capture_default_str();
  app.add_option(
         "--gpu-memory", common.gpu_memory,
         "Memory of the GPU for the bank, as 20GB; what does not fit stays in host memory (default: what is free)")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 50));
}

DeviceOptions device_options(const Common& common) {
  DeviceOptions options;
  options.keys = parse_key_format(common.routing_keys);
  options.gpu_memory = common.gpu_memory;
  return options;
}

void add_bank_option(CLI::App& app, Common& common) {
  app.add_option("--bank", common.bank, "Memory bank directory (default: $MSA_BANK, else ./memory)");
}

void add_json_option(CLI::App& app, Common& common) { app.add_flag("--json", common.json, "Print one JSON object"); }

void add_scope_options(CLI::App& app, DocumentScope& scope) {
  app.add_option("--filter", scope.filter, "Only documents that match, as: namespace = 'a' and tag in ('x', 'y')");
  app.add_option("--as-of", scope.as_of, "Answer from the memory as it was then, as 2026-01-31T12:00");
}

void add_answer_options(CLI::App& app, AskOptions& ask) {
  app.add_option("--top-k", ask.top_k, "Documents attended in each routing layer (default: the model's)")
      ->check(CLI::Range(1, 4096));
  app.add_option("--hops", ask.max_hops, "At most this many rounds of fetching")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  app.add_option("--max-documents", ask.max_documents, "Documents fetched at most")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--rerank", ask.rerank, "Candidates read before one is cited, in each hop (default: the model's)")
      ->check(CLI::Range(0, 1024));
  app.add_option(
         "--min-relevance", ask.min_relevance,
         "Cite only documents that the model, reading them, finds this relevant; without any there is no answer")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--max-tokens", ask.max_answer_tokens, "Length of an answer at most")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
}

std::string bank_path(const Common& common) {
  if (!common.bank.empty()) return common.bank;
  if (const char* variable = std::getenv("MSA_BANK"); variable != nullptr && *variable != '\0') return variable;
  return "memory";
}

std::unique_ptr<Bank> open_any_bank(const Common& common, BankMode mode) {
  const std::string path = bank_path(common);
  if (!std::filesystem::exists(std::filesystem::path(path) / "bank.db")) {
    throw Error("there is no memory bank here", path, "make one with: msa add PATH…, or give --bank DIR");
  }
  return Bank::open(path, mode);
}

std::unique_ptr<Bank> open_bank(const Common& common, const Model& model, BankMode mode) {
  const std::string path = bank_path(common);
  if (mode == BankMode::kRead && !std::filesystem::exists(std::filesystem::path(path) / "bank.db")) {
    throw Error("there is no memory bank here", path, "make one with: msa add PATH…, or give --bank DIR");
  }
  return Bank::create_or_open(path, bank_shape(model.transformer()), mode);
}

Context make_context(const Common& common) {
  if (!common.for_all_ranks || launched_size() == 1) return make_context(common, 0, 1);
  return make_context(common, launched_local_rank(), launched_local_size());
}

Context make_context(const Common& common, int rank, int ranks) {
  const char* variable = std::getenv("MSA_DEVICE");
  const std::string fallback = variable != nullptr && *variable != '\0' ? variable : "cpu";
  const std::string name = common.device.empty() ? fallback : common.device;
  Device device = parse_device(name);
  int threads = common.threads;
  if (ranks > 1) {
    if constexpr (kHasCuda) {
      if (name == "cuda") device.index = rank % cuda_count();
    }
    // A rank that the launcher has bound to some processors takes these; otherwise the host's ranks share them.
    const bool is_bound = available_cpus() < static_cast<int>(std::thread::hardware_concurrency());
    if (threads == 0 && !is_bound) threads = std::max(1, available_cpus() / ranks);
  }
  return Context(threads, device);
}

Model load_model(Context& context, const Common& common) {
  return Model(context, find_model_directory(common.model), parse_precision(common.dtype));
}

void print_json(const Json& value) {
  // Text that is not UTF-8 becomes U+FFFD rather than an exception.
  std::cout << value.dump(2, ' ', false, Json::error_handler_t::replace) << std::endl;
}

std::string one_line(std::string_view text, size_t limit) {
  std::string out;
  for (const char c : text) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (control && (out.empty() || out.back() == ' ')) continue;
    out += control ? ' ' : c;
  }
  if (out.size() <= limit) return out;
  while (limit > 0 && (static_cast<unsigned char>(out[limit]) & 0xc0u) == 0x80u) --limit;
  return out.substr(0, limit) + "…";
}

std::string utc_now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr))); }

double ms_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace msa::cli
