#include "ops/silu_mul.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/silu_mul.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "ops/check.h"
#include "ops/cuda_ops.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

/// silu(x) = x / (1 + e^-x), written with e^-|x| so that nothing overflows.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V silu(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V e = exp_nonpositive(d, hn::Neg(hn::Abs(x)));
  const V numerator = hn::IfThenElse(hn::Ge(x, hn::Zero(d)), one, e);
  return hn::Mul(x, hn::Div(numerator, hn::Add(one, e)));
}

template <class In, class Out>
HWY_INLINE void silu_mul_rows(const Tensor& gate, const Tensor& up, const Tensor& out, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const In* g = gate.row<In>(t);
    const In* u = up.row<In>(t);
    Out* y = out.row<Out>(t);
    for_each_vector(static_cast<size_t>(gate.dim(1)), [&](auto d, size_t i) HWY_ATTR {
      store_float(d, hn::Mul(silu(d, load_float(d, g + i)), load_float(d, u + i)), y + i);
    });
  }
}

void silu_mul_any(const Tensor& gate, const Tensor& up, const Tensor& out, int64_t begin, int64_t end) {
  const bool out_f32 = out.dtype == DType::kF32;
  if (gate.dtype == DType::kF32) {
    return out_f32 ? silu_mul_rows<float, float>(gate, up, out, begin, end)
                   : silu_mul_rows<float, bf16>(gate, up, out, begin, end);
  }
  return out_f32 ? silu_mul_rows<bf16, float>(gate, up, out, begin, end)
                 : silu_mul_rows<bf16, bf16>(gate, up, out, begin, end);
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa {

HWY_EXPORT(silu_mul_any);

void silu_mul(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out) {
  MSA_CHECK(gate.rank == 2 && is_f32_or_bf16(gate) && gate.dtype == up.dtype && is_f32_or_bf16(out));
  MSA_CHECK(same_shape(gate, up) && same_shape(gate, out));
  if (runs_on_cuda(context, gate, up, out)) {
    if constexpr (kHasCuda) return silu_mul_cuda(context, gate, up, out);
  }
  context.pool.parallel_for(gate.rows(), 4, [&](int64_t begin, int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(silu_mul_any)(gate, up, out, begin, end);
  });
}

}  // namespace msa
#endif  // HWY_ONCE
