// Products of the default model's shapes against measured limits of the machine.
//   encode: GFLOP/s, and the share of what a large square product of the same format reaches with as many threads
//   decode: GB/s of weight bytes, cycling over copies larger than the cache, and the share of a plain read's speed
// Timings are the best of many repetitions (the machine may be shared): counters "GFLOP/s", "GB/s", "share".
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/quant.h"
#include "ops/linear.h"

namespace msa {
namespace {

struct Shape {
  const char* name;
  int64_t in, out;
};
constexpr Shape kShapes[] = {{"qkv", 576, 960}, {"o", 576, 576}, {"gate_up", 576, 3072}, {"down", 1536, 576}};

struct Kind {
  const char* name;
  DType weight;
  Linear::Options options;
  double bytes_per_weight;  // when decoding
};
constexpr Kind kKinds[] = {
    {"f32", DType::kF32, {LinearFormat::kF32, DecodeFormat::kSame}, 4},
    {"bf16", DType::kF32, {LinearFormat::kBF16, DecodeFormat::kSame}, 2},
    {"int8", DType::kF32, {LinearFormat::kInt8, DecodeFormat::kSame}, 1},
    {"q8_0", DType::kF32, {LinearFormat::kF32, DecodeFormat::kQ8_0}, 34.0 / 32},
    {"q4_1", DType::kQ4_1, {LinearFormat::kF32, DecodeFormat::kFile}, 20.0 / 32},
};

double seconds_of(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double best_of(int repetitions, const std::function<void()>& body) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repetitions; ++i) best = std::min(best, seconds_of(body));
  return best;
}

/// A weight whose values do not matter, but are no denormals.
Buffer make_weight(DType type, int64_t out, int64_t in, Tensor& view) {
  Buffer memory;
  view = memory.tensor(type, {out, in});
  if (is_quantised(type)) {
    std::memset(memory.data(), 0x25, static_cast<size_t>(view.bytes()));  // scales of 0.02
  } else {
    std::fill_n(view.as<float>(), view.elements(), 0.02f);
  }
  return memory;
}

struct Product {
  Product(Context& context, const Kind& kind, int64_t in, int64_t out) {
    Tensor view;
    const Buffer memory = make_weight(kind.weight, out, in, view);
    linear = Linear(context, view, kind.options);
  }
  Linear linear;
};

struct Activations {
  Activations(int64_t T, int64_t in, int64_t out, DType x_type, DType y_type) {
    x = x_memory.tensor(x_type, {T, in});
    y = y_memory.tensor(y_type, {T, out});
    std::memset(x.data, 0x3c, static_cast<size_t>(x.bytes()));
    std::memset(y.data, 0, static_cast<size_t>(y.bytes()));
  }
  Buffer x_memory, y_memory;
  Tensor x, y;
};

double peak_flops(const Kind& kind, int threads) {
  static std::map<std::pair<const Kind*, int>, double> known;
  double& peak = known[{&kind, threads}];
  if (peak == 0) {
    constexpr int64_t kSide = 768;  // short enough to run undisturbed now and then
    Context context(threads);
    const Product p(context, kind, kSide, kSide);
    const DType type = kind.options.format == LinearFormat::kBF16 ? DType::kBF16 : DType::kF32;
    const Activations a(kSide, kSide, kSide, type, DType::kF32);
    peak = 2.0 * kSide * kSide * kSide / best_of(300, [&] { p.linear.forward(context, a.x, a.y); });
  }
  return peak;
}

/// Bytes per second of summing 128 MiB, every worker its part.
double read_bandwidth(int threads) {
  static std::map<int, double> known;
  double& speed = known[threads];
  if (speed == 0) {
    constexpr int64_t kWords = 128 << 17;
    Context context(threads);
    std::vector<uint64_t> memory(kWords, 1);
    std::vector<uint64_t> sums(static_cast<size_t>(threads) * 8);
    const double seconds = best_of(40, [&] {
      context.pool.parallel_for(kWords, 1024, [&](int64_t begin, int64_t end, int worker) {
        uint64_t lanes[16] = {};
        for (int64_t i = begin; i + 16 <= end; i += 16) {
          for (int64_t k = 0; k < 16; ++k) lanes[k] += memory[static_cast<size_t>(i + k)];
        }
        for (const uint64_t lane : lanes) sums[static_cast<size_t>(worker) * 8] += lane;
      });
      benchmark::DoNotOptimize(sums.data());
    });
    speed = kWords * 8 / seconds;
  }
  return speed;
}

void encode(benchmark::State& state, const Kind& kind, const Shape& shape, DType y_type, bool accumulate) {
  const int64_t T = state.range(0);
  const int threads = static_cast<int>(state.range(1));
  Context context(threads);
  const Product p(context, kind, shape.in, shape.out);
  const DType type = kind.options.format == LinearFormat::kBF16 ? DType::kBF16 : DType::kF32;
  const Activations a(T, shape.in, shape.out, type, y_type);
  double best = std::numeric_limits<double>::infinity();
  for (auto _ : state) {
    best = std::min(best, seconds_of([&] { p.linear.forward(context, a.x, a.y, accumulate); }));
  }
  const double flops = 2.0 * static_cast<double>(T * shape.in * shape.out) / best;
  state.counters["GFLOP/s"] = flops * 1e-9;
  state.counters["share"] = flops / peak_flops(kind, threads);
}

void decode(benchmark::State& state, const Kind& kind, const Shape& shape) {
  const int64_t T = state.range(0);
  const int threads = static_cast<int>(state.range(1));
  Context context(threads);
  const double bytes = kind.bytes_per_weight * static_cast<double>(shape.in * shape.out);
  std::vector<Linear> copies;
  for (double total = 0; total < 160e6; total += bytes) {
    copies.push_back(Product(context, kind, shape.in, shape.out).linear);
  }
  const Activations a(T, shape.in, shape.out, DType::kF32, DType::kF32);
  double best = std::numeric_limits<double>::infinity();
  for (auto _ : state) {
    best = std::min(best, seconds_of([&] {
                      for (const Linear& linear : copies) linear.forward(context, a.x, a.y);
                    }));
  }
  const double speed = bytes * static_cast<double>(copies.size()) / best;
  state.counters["GB/s"] = speed * 1e-9;
  state.counters["share"] = speed / read_bandwidth(threads);
  state.counters["us"] = best / static_cast<double>(copies.size()) * 1e6;
}

/// Every product of one decoded token: 30 layers and the output projection, 95 MB of weights.
void token(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(0));
  constexpr int kLayers = 30;
  constexpr int64_t kVocabulary = 49152;
  Context context(threads);
  std::vector<Linear> linears;
  std::vector<Activations> activations;
  double bytes = 0;
  const auto add = [&](const Kind& kind, int64_t in, int64_t out) {
    linears.push_back(Product(context, kind, in, out).linear);
    activations.emplace_back(1, in, out, DType::kF32, DType::kF32);
    bytes += kind.bytes_per_weight * static_cast<double>(in * out);
  };
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const Shape& shape : kShapes) add(kKinds[4], shape.in, shape.out);
  }
  add(kKinds[3], 576, kVocabulary);
  double best = std::numeric_limits<double>::infinity();
  for (auto _ : state) {
    best = std::min(best, seconds_of([&] {
                      for (size_t i = 0; i < linears.size(); ++i)
                        linears[i].forward(context, activations[i].x, activations[i].y);
                    }));
  }
  state.counters["ms"] = best * 1e3;
  state.counters["GB/s"] = bytes / best * 1e-9;
  state.counters["share"] = bytes / best / read_bandwidth(threads);
}

void register_all() {
  benchmark::RegisterBenchmark("token/q4_1", token)
      ->ArgsProduct({{1, 2}})
      ->ArgNames({"threads"})
      ->MinTime(2)
      ->Unit(benchmark::kMillisecond);
  for (const Kind& kind : kKinds) {
    for (const Shape& shape : kShapes) {
      const std::string name = std::string(kind.name) + "/" + shape.name;
      if (kind.options.decode == DecodeFormat::kSame) {
        const bool residual = shape.in == 1536;
        benchmark::RegisterBenchmark(("encode/" + name).c_str(), encode, kind, shape, DType::kF32, residual)
            ->ArgsProduct({{512, 2048, 8192}, {1, 2}})
            ->ArgNames({"T", "threads"})
            ->MinTime(0.2)
            ->Unit(benchmark::kMicrosecond);
      }
      benchmark::RegisterBenchmark(("decode/" + name).c_str(), decode, kind, shape)
          ->ArgsProduct({{1, 4, 8}, {1, 2}})
          ->ArgNames({"T", "threads"})
          ->MinTime(0.2)
          ->Unit(benchmark::kMillisecond);
    }
  }
}

const bool kRegistered = (register_all(), true);

}  // namespace
}  // namespace msa
