#include "ops/limits.h"

#include <array>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>

#include "core/copy.h"
#include "ops/fill.h"

namespace msa::bench {

/// GFLOP/s of a large matrix product in this format, the best of many.
double product_limit(Context& context, LinearFormat format) {
  static std::map<std::tuple<DeviceType, int, LinearFormat>, double> known;
  double& limit = known[{context.device.type, context.pool.threads(), format}];
  if (limit > 0) return limit;
  const bool gpu = on_cuda(context.device);
  const int64_t tokens = gpu ? 8192 : 512, size = gpu ? 8192 : 1536;
  const DType type = gpu && format != LinearFormat::kF32 ? DType::kBF16 : DType::kF32;
  Buffer weight, x, y;
  const Tensor w = weight.tensor(type, {size, size}, context.device),
               in = x.tensor(type, {tokens, size}, context.device);
  fill_uniform(context, w, 1.0f, 1);
  fill_uniform(context, in, 1.0f, 2);
  const Linear linear(context, w, {format, DecodeFormat::kSame});
  const Tensor out = y.tensor(type, {tokens, size}, context.device);
  linear.forward(context, in, out);
  synchronize(context);
  const double seconds = best_seconds(context, 20, [&] {
    linear.forward(context, in, out);
    synchronize(context);
  });
  return limit = 2e-9 * static_cast<double>(tokens * size * size) / seconds;
}

namespace {

double copy_limit(Context& context) {
  constexpr int64_t kBytes = int64_t{1} << 31;
  Buffer a, b;
  const Tensor from = a.tensor(DType::kI8, {kBytes}, context.device),
               to = b.tensor(DType::kI8, {kBytes}, context.device);
  const auto run = [&] {
    copy(context, from, to);
    synchronize(context);
  };
  run();
  return 2e-9 * static_cast<double>(kBytes) / best_seconds(context, 10, run);
}

}  // namespace

/// GB/s of reading memory far larger than the caches.
double read_limit(Context& context) {
  static std::map<std::pair<DeviceType, int>, double> known;
  double& limit = known[{context.device.type, context.pool.threads()}];
  if (limit > 0) return limit;
  if (on_cuda(context.device)) return limit = copy_limit(context);
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
