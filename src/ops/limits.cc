#include "ops/limits.h"

#include <array>
#include <cstdint>
#include <map>
#include <utility>

namespace msa::bench {

/// GFLOP/s of a large matrix product in this format, the best of many.
double product_limit(Context& context, LinearFormat format) {
  static std::map<std::pair<int, LinearFormat>, double> known;
  double& limit = known[{context.pool.threads(), format}];
  if (limit > 0) return limit;
  constexpr int64_t kTokens = 512, kSize = 1536;
  Buffer weight, x, y;
  const Tensor w = weight.tensor(DType::kF32, {kSize, kSize}), in = x.tensor(DType::kF32, {kTokens, kSize});
  std::fill_n(w.as<float>(), w.elements(), 0.5f);
  std::fill_n(in.as<float>(), in.elements(), 0.5f);
  const Linear linear(context, w, {format, DecodeFormat::kSame});
  const Tensor out = y.tensor(DType::kF32, {kTokens, kSize});
  const double seconds = best_seconds(context, 20, [&] { linear.forward(context, in, out); });
  return limit = 2e-9 * kTokens * kSize * kSize / seconds;
}

/// GB/s of reading memory far larger than the caches.
double read_limit(Context& context) {
  static std::map<int, double> known;
  double& limit = known[context.pool.threads()];
  if (limit > 0) return limit;
  constexpr int64_t kWords = int64_t{1} << 25;
  Buffer buffer;
  const Tensor t = buffer.tensor(DType::kI64, {kWords});
  std::fill_n(t.as<uint64_t>(), kWords, 1);
  std::array<uint64_t, 256> sums{};
  const double seconds = best_seconds(context, 10, [&] {
    context.pool.parallel_for(kWords, 1024, [&](int64_t begin, int64_t end, int worker) {
      std::array<uint64_t, 8> sum{};
      for (int64_t i = begin; i + 8 <= end; i += 8) {
        for (size_t j = 0; j < 8; ++j) sum[j] += t.as<uint64_t>()[i + static_cast<int64_t>(j)];
      }
      for (const uint64_t s : sum) sums[static_cast<size_t>(worker) % sums.size()] += s;
    });
  });
  MSA_CHECK(sums[0] > 0);
  return limit = 8e-9 * static_cast<double>(kWords) / seconds;
}

}  // namespace msa::bench
