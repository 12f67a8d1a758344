// The routing scan over the keys of the default model (n = 3 · 64) and of the 4B shape (8 · 128).
#include <benchmark/benchmark.h>

#include <random>

#include "ops/limits.h"
#include "ops/max_inner_product.h"

namespace msa {
namespace {

void scan(benchmark::State& state, DType type) {
  const int64_t n = state.range(0), queries = state.range(1), keys = (int64_t{64} << 20) / n;
  Context context(static_cast<int>(state.range(2)));
  Buffer q_memory, k_memory, out_memory;
  const Tensor q = q_memory.tensor(DType::kF32, {queries, n}), k = k_memory.tensor(type, {keys, n});
  std::minstd_rand engine(1);
  std::uniform_real_distribution<float> value(-1, 1);
  for (int64_t i = 0; i < q.elements(); ++i) q.as<float>()[i] = value(engine);
  for (int64_t i = 0; i < k.elements(); ++i) {
    if (type == DType::kF32)
      k.as<float>()[i] = value(engine);
    else
      k.as<bf16>()[i] = to_bf16(value(engine));
  }
  const Tensor out = out_memory.tensor(DType::kF32, {keys});
  double best = 1e9;
  for (auto _ : state)
    best = std::min(best, bench::best_seconds(context, 1, [&] { max_inner_product(context, q, k, out); }));
  const double gflops = 2e-9 * static_cast<double>(keys * n * queries) / best;
  const double gbps = 1e-9 * static_cast<double>(k.bytes()) / best;
  state.counters["Mkeys/s"] = 1e-6 * static_cast<double>(keys) / best;
  state.counters["GFLOP/s"] = gflops;
  state.counters["GB/s"] = gbps;
  state.counters["share"] =
      std::max(gflops / bench::product_limit(context, LinearFormat::kF32), gbps / bench::read_limit(context));
}

BENCHMARK_CAPTURE(scan, f32, DType::kF32)
    ->ArgsProduct({{192, 1024}, {1, 4, 8, 12, 16, 32, 128}, {1, 2}})
    ->UseRealTime();
BENCHMARK_CAPTURE(scan, bf16, DType::kBF16)
    ->ArgsProduct({{192, 1024}, {1, 4, 8, 12, 16, 32, 128}, {1, 2}})
    ->UseRealTime();

}  // namespace
}  // namespace msa
