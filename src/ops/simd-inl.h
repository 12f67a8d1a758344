// Vector helpers shared by the kernels: loads and stores of F32 and BF16, the loop over a row, exp.
// Included once per instruction set (Highway's foreach_target); lanes hold float32 throughout.
#if defined(MSA_OPS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_OPS_SIMD_INL_H_
#undef MSA_OPS_SIMD_INL_H_
#else
#define MSA_OPS_SIMD_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using OneLaneTag = hn::CappedTag<float, 1>;

template <class D>
HWY_INLINE hn::Vec<D> load_float(D d, const float* p) {
  return hn::LoadU(d, p);
}

template <class D>
HWY_INLINE hn::Vec<D> load_float(D d, const bf16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<uint32_t, D> d32;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

template <class D>
HWY_INLINE void store_float(D d, hn::Vec<D> v, float* p) {
  hn::StoreU(v, d, p);
}

/// Rounds to nearest even; NaN stays NaN (the same bits as to_bf16).
template <class D>
HWY_INLINE void store_float([[maybe_unused]] D d, hn::Vec<D> v, bf16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<int32_t, D> di32;
  const hn::Rebind<uint32_t, D> du32;
  const auto bits = hn::BitCast(du32, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du32, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du32, 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(du32, 0x400000));
  const auto chosen = hn::IfThenElse(hn::RebindMask(du32, hn::IsNaN(v)), quiet, rounded);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, hn::ShiftRight<16>(chosen))), d16, reinterpret_cast<uint16_t*>(p));
}

/// body(tag, i) over [0, n): whole vectors first, then lane by lane.
template <class Body>
HWY_INLINE void for_each_vector(size_t n, const Body& body) {
  const FloatTag d;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) body(d, i);
  for (; i < n; ++i) body(OneLaneTag(), i);
}

HWY_INLINE float sum_of_squares(const float* x, size_t n) {
  const FloatTag d;
  auto sum = hn::Zero(d);
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto v = hn::LoadU(d, x + i);
    sum = hn::MulAdd(v, v, sum);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += x[i] * x[i];
  return total;
}

/// e^x for x <= 0 within 2 units in the last place; 0 below -87.3, where float32 leaves its normal range.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_nonpositive(D d, V x) {
  const hn::Rebind<int32_t, D> di;
  const V k = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504088896341f)));
  V r = hn::NegMulAdd(k, hn::Set(d, 0.693359375f), x);  // ln 2 in two parts (Cephes expf)
  r = hn::NegMulAdd(k, hn::Set(d, -2.12194440e-4f), r);
  V p = hn::Set(d, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::ConvertTo(di, k));
  const V scaled = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  return hn::IfThenElseZero(hn::Ge(x, hn::Set(d, -87.3f)), scaled);
}

/// 2^x for x <= 0, 0 below -125. Within 1.5e-7 relative, or (Coarse) 8e-5: far below the rounding of a bf16.
template <bool kCoarse, class D, class V = hn::Vec<D>>
HWY_INLINE V exp2_nonpositive(D d, V x) {
  const hn::Rebind<int32_t, D> di;
  const V k = hn::Round(x);
  const V r = hn::Sub(x, k);
  V p;
  if constexpr (kCoarse) {
    p = hn::MulAdd(hn::Set(d, 0.055171495f), r, hn::Set(d, 0.242611109f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.693261018f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.999928075f));
  } else {
    p = hn::MulAdd(hn::Set(d, 0.000153533572f), r, hn::Set(d, 0.00133988762f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.00961843739f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.0555033247f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.240226479f));
    p = hn::MulAdd(p, r, hn::Set(d, 0.693147203f));
    p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  }
  const V scaled = hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::ConvertTo(di, k))));
  return hn::IfThenElseZero(hn::Ge(x, hn::Set(d, -125.0f)), scaled);
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
