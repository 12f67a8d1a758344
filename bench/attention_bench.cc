// Attention of the default model's shape (9 query heads, 3 key/value heads of 64), against the product limit.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "ops/attention.h"
#include "ops/limits.h"

namespace msa {
namespace {

constexpr int64_t kHeads = 9, kGroups = 3, kDim = 64;

Tensor random_tensor(Buffer& memory, DType dtype, std::initializer_list<int64_t> dims) {
  const Tensor t = memory.tensor(dtype, dims);
  std::minstd_rand engine(1);
  std::uniform_real_distribution<float> value(-1, 1);
  for (int64_t i = 0; i < t.elements(); ++i) {
    if (dtype == DType::kF32)
      t.as<float>()[i] = value(engine);
    else
      t.as<bf16>()[i] = to_bf16(value(engine));
  }
  return t;
}

void report(benchmark::State& state, Context& context, double flop, DType out, double best) {
  const double limit = bench::product_limit(context, out == DType::kF32 ? LinearFormat::kF32 : LinearFormat::kBF16);
  state.counters["GFLOP/s"] = flop * 1e-9 / best;
  state.counters["limit"] = limit;
  state.counters["share"] = flop * 1e-9 / best / limit;
}

/// Documents of one length, about 2,048 tokens in all. The causal half counts as work: 2 · n²/2 · d · 2 products.
void packed(benchmark::State& state, DType out_type) {
  Context context(static_cast<int>(state.range(1)));
  const int64_t n = state.range(0), documents = std::max<int64_t>(1, 2048 / n), tokens = n * documents;
  Buffer memory[4];
  const Tensor q = random_tensor(memory[0], DType::kF32, {tokens, kHeads, kDim});
  const Tensor k = random_tensor(memory[1], DType::kF32, {tokens, kGroups, kDim});
  const Tensor v = random_tensor(memory[2], DType::kF32, {tokens, kGroups, kDim});
  const Tensor out = memory[3].tensor(out_type, {tokens, kHeads, kDim});
  std::vector<int64_t> starts;
  for (int64_t s = 0; s <= documents; ++s) starts.push_back(s * n);
  double best = 1e9;
  for (auto _ : state) {
    best = std::min(best,
                    bench::best_seconds(context, 1, [&] { packed_causal_attention(context, q, k, v, starts, out); }));
  }
  const double pairs = static_cast<double>(documents * n * (n + 1) / 2);
  report(state, context, 4 * pairs * kHeads * kDim, out_type, best);
}

/// `tokens` queries over 16 documents of 4 chunks and `local` local rows, keys and values in `type`.
void prefixed(benchmark::State& state, DType type, DType out_type) {
  const int64_t tokens = state.range(0), local_rows = state.range(1);
  Context context(static_cast<int>(state.range(2)));
  std::vector<Buffer> memory(40);
  const Tensor q = random_tensor(memory[0], DType::kF32, {tokens, kHeads, kDim});
  const Tensor out = memory[1].tensor(out_type, {tokens, kHeads, kDim});
  size_t used = 2;
  const auto span = [&](int64_t rows) {
    const Tensor k = random_tensor(memory[used++], type, {rows, kGroups, kDim});
    return KeyValueSpan{k, random_tensor(memory[used++], type, {rows, kGroups, kDim})};
  };
  std::vector<KeyValueSpan> prefix = {span(3)};
  for (int i = 0; i < 16; ++i) prefix.push_back(span(4));
  const KeyValueSpan local = span(local_rows);
  double best = 1e9;
  for (auto _ : state) {
    best = std::min(best, bench::best_seconds(context, 1, [&] { prefixed_attention(context, q, prefix, local, out); }));
  }
  const double keys = static_cast<double>(3 + 64 + local_rows);
  report(state, context, 4 * keys * static_cast<double>(tokens) * kHeads * kDim, out_type, best);
  state.counters["us"] = best * 1e6;
  state.counters["GB/s"] = 2e-9 * keys * kGroups * kDim * (type == DType::kF32 ? 4 : 2) / best;
}

const auto kLengths = benchmark::CreateRange(64, 2048, 2);
BENCHMARK_CAPTURE(packed, f32, DType::kF32)->ArgsProduct({kLengths, {1, 2}})->UseRealTime();
BENCHMARK_CAPTURE(packed, bf16, DType::kBF16)->ArgsProduct({kLengths, {1, 2}})->UseRealTime();
BENCHMARK_CAPTURE(prefixed, f32, DType::kF32, DType::kF32)->ArgsProduct({{1, 200}, {300, 2000}, {1, 2}})->UseRealTime();
BENCHMARK_CAPTURE(prefixed, bf16, DType::kBF16, DType::kBF16)
    ->ArgsProduct({{1, 200}, {300, 2000}, {1, 2}})
    ->UseRealTime();

}  // namespace
}  // namespace msa
