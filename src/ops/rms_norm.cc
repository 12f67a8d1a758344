#include "ops/rms_norm.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/rms_norm.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "ops/check.h"
#include "ops/cuda_ops.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

template <class Out>
HWY_INLINE void norm_row(const float* x, const float* weight, size_t n, float eps, Out* y) {
  const float scale = 1.0f / std::sqrt(sum_of_squares(x, n) / static_cast<float>(n) + eps);
  for_each_vector(n, [&](auto d, size_t i) HWY_ATTR {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale));
    store_float(d, hn::Mul(scaled, hn::LoadU(d, weight + i)), y + i);
  });
}

void rms_norm_row_f32(const float* x, const float* weight, size_t n, float eps, float* y) {
  norm_row(x, weight, n, eps, y);
}
void rms_norm_row_bf16(const float* x, const float* weight, size_t n, float eps, bf16* y) {
  norm_row(x, weight, n, eps, y);
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa {

HWY_EXPORT(rms_norm_row_f32);
HWY_EXPORT(rms_norm_row_bf16);

void rms_norm(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  MSA_CHECK(x.rank == 2 && is_f32_or_bf16(x) && is_f32(weight) && is_f32_or_bf16(y) && same_shape(x, y));
  MSA_CHECK(weight.elements() == x.dim(1) && weight.is_dense());
  if (runs_on_cuda(context, x, weight, y)) {
    if constexpr (kHasCuda) return rms_norm_cuda(context, x, weight, eps, y);
  }
  MSA_CHECK(is_f32(x));
  const size_t n = static_cast<size_t>(x.dim(1));
  const float* w = weight.as<float>();
  context.pool.parallel_for(x.rows(), 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      if (y.dtype == DType::kF32) {
        HWY_DYNAMIC_DISPATCH(rms_norm_row_f32)(x.row<float>(t), w, n, eps, y.row<float>(t));
      } else {
        HWY_DYNAMIC_DISPATCH(rms_norm_row_bf16)(x.row<float>(t), w, n, eps, y.row<bf16>(t));
      }
    }
  });
}

void rms_norm_heads(Context& context, const Tensor& x, const Tensor& weight, float eps) {
  MSA_CHECK(x.rank == 3 && is_f32_or_bf16(x) && is_f32(weight));
  MSA_CHECK(weight.elements() == x.dim(2) && weight.is_dense());
  if (runs_on_cuda(context, x, weight)) {
    if constexpr (kHasCuda) return rms_norm_heads_cuda(context, x, weight, eps);
  }
  MSA_CHECK(is_f32(x));
  const int64_t heads = x.dim(1), d = x.dim(2);
  context.pool.parallel_for(x.rows(), 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        float* head = x.row<float>(t) + h * d;
        HWY_DYNAMIC_DISPATCH(rms_norm_row_f32)(head, weight.as<float>(), static_cast<size_t>(d), eps, head);
      }
    }
  });
}

}  // namespace msa
#endif  // HWY_ONCE
