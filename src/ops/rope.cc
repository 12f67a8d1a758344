#include "ops/rope.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/rope.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/copy.h"
#include "ops/check.h"
#include "ops/cuda_ops.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

/// Rotates `heads` heads of one row in place; cos and sin have `half` elements each.
void rope_row(float* x, int64_t heads, size_t half, const float* cos, const float* sin) {
  for (int64_t h = 0; h < heads; ++h, x += 2 * half) {
    for_each_vector(half, [&](auto d, size_t i) HWY_ATTR {
      const auto a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + half + i);
      const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
      hn::StoreU(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, x + i);
      hn::StoreU(hn::MulAdd(a, s, hn::Mul(b, c)), d, x + half + i);
    });
  }
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa {

HWY_EXPORT(rope_row);

// Frequencies and angles are rounded to float32 exactly where the public (Hugging Face) code rounds them: at position
// 2,000 an angle kept in double would differ from the trained model's by 1e-4.
RopeTable::RopeTable(int dim, float theta, int positions) : head_dim(dim), max_positions(positions) {
  MSA_CHECK(dim > 0 && dim % 2 == 0 && theta > 0 && positions >= 0);
  const size_t half = static_cast<size_t>(dim) / 2;
  std::vector<float> frequencies(half);
  for (size_t i = 0; i < half; ++i) {
    frequencies[i] = 1.0f / std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(dim));
  }
  cos_sin.resize(static_cast<size_t>(positions) * 2 * half);
  for (size_t p = 0; p < static_cast<size_t>(positions); ++p) {
    for (size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p) * frequencies[i];
      cos_sin[(2 * p) * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      cos_sin[(2 * p + 1) * half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

void RopeTable::prepare(Context& context) {
  if (!on_cuda(context.device)) return;
  const auto n = static_cast<int64_t>(cos_sin.size());
  device = to_device(context, Tensor(cos_sin.data(), DType::kF32, {n}), device_memory);
}

void rope(Context& context, const RopeTable& table, const Indices& positions, const Tensor& x) {
  MSA_CHECK(x.rank == 3 && is_f32_or_bf16(x) && x.dim(2) == table.head_dim);
  MSA_CHECK(x.rows() == positions.size());
  MSA_CHECK(std::all_of(positions.host.begin(), positions.host.end(),
                        [&](int32_t p) { return p >= 0 && p < table.max_positions; }));
  if (runs_on_cuda(context, x)) {
    MSA_CHECK(table.device.device == context.device);
    if constexpr (kHasCuda) return rope_cuda(context, table, positions.on(context), x);
  }
  MSA_CHECK(is_f32(x));
  const size_t half = static_cast<size_t>(table.head_dim) / 2;
  context.pool.parallel_for(x.rows(), 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* cos = table.cos_sin.data() + static_cast<size_t>(positions.host[static_cast<size_t>(t)]) * 2 * half;
      HWY_DYNAMIC_DISPATCH(rope_row)(x.row<float>(t), x.dim(1), half, cos, cos + half);
    }
  });
}

}  // namespace msa
#endif  // HWY_ONCE
