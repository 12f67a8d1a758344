// What the subcommands of `msa bench` share.
#pragma once
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace msa::cli {

struct BankBenchOptions {
  int64_t documents = 1000000;
  int chunks = 1;        // of each document
  int text_bytes = 280;  // of each chunk; 64 tokens of English
  int layers = 2;        // routing layers; so that a million documents take little room
  int kv_heads = 1;
  int head_dim = 16;
  std::string folder;  // where the bank is made and removed again; empty = the system's place for such files
};

struct ParallelBenchOptions {
  int ranks = 1;           // threads of this process, where mpirun started one alone
  int64_t chunks = 16384;  // of the made-up bank
  int document_chunks = 8;
  int documents = 8;   // encoded; 0: none
  std::string folder;  // as of BankBenchOptions, seen by all ranks
};

struct BenchOptions {
  int repeats = 5;
  int document_tokens = 512;
  int documents = 16;
  int gpu_documents = 128;  // of bench gpu: a pack that fills a large GPU
  int new_tokens = 128;
  int prompt_tokens = 32;
  int64_t chunks = 200000;
  int query_tokens = 32;
  int64_t bank_tokens = 100000000;
  int pack_tokens = 0;  // 0: the device's own
  std::string shape;    // random weights of this shape; "": a model directory
  BankBenchOptions bank;
  ParallelBenchOptions parallel;
};

/// A model directory's transformer, or one of a named shape with random weights.
class BenchModel {
 public:
  BenchModel(Context& context, const Common& common, const std::string& shape);
  const Transformer& transformer() const { return loaded_ ? loaded_->transformer() : *random_; }
  const ModelConfig& config() const { return transformer().config(); }
  const KvCache& head() const { return loaded_ ? loaded_->head() : random_head_; }

 private:
  std::unique_ptr<Model> loaded_;
  std::unique_ptr<Transformer> random_;
  KvCache random_head_;
};

/// Milliseconds of the best and of the median of `repeats` runs, after one run to warm up.
struct Timing {
  double best_ms = 0, median_ms = 0;
};
Timing time_runs(int repeats, const std::function<void()>& run);

std::vector<int32_t> random_tokens(int count, int vocab, uint64_t seed);

/// Prints the result, with the GPU where it was measured on one.
void report(const Common& common, const std::string& what, Json result);
void report(const Common& common, const Context& context, const std::string& what, Json result);
inline double round1(double x) { return std::round(x * 10) / 10; }
inline double round2(double x) { return std::round(x * 100) / 100; }

Json measure_encode(Context& context, const Common& common, const BenchModel& model, const BenchOptions& o);
Json measure_decode(Context& context, const BenchModel& model, const BenchOptions& o);
Json measure_ttft(Context& context, const Common& common, const BenchModel& model, const BenchOptions& o);
Json measure_bank(const BankBenchOptions& options);
int bench_gpu(const Common& common, const BenchOptions& o);
int bench_ops(const Common& common, const BenchOptions& o);
int bench_ttft(const Common& common, const BenchOptions& o);
int bench_parallel(const Common& common, const BenchOptions& o);

}  // namespace msa::cli
