// The register tile under attention: C [rows, 2 vectors] = A [rows, steps] · B [steps, 2 vectors].
// One step is 32 bits of A and of each lane of B: a float32, or (Pairs) two bf16 neighbours along the inner dimension.
#if defined(MSA_OPS_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_OPS_GEMM_INL_H_
#undef MSA_OPS_GEMM_INL_H_
#else
#define MSA_OPS_GEMM_INL_H_
#endif

#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

using FloatVec = hn::Vec<FloatTag>;

/// Columns of one panel of B: two vectors, so that every broadcast of A feeds two multiply-adds.
HWY_INLINE constexpr size_t panel_columns() { return 2 * hn::MaxLanes(FloatTag()); }

// 24 accumulators where there are 32 registers, 12 where there are 16.
#if HWY_TARGET <= HWY_AVX3
constexpr int kTileRows = 12;
#else
constexpr int kTileRows = 6;
#endif

#if HWY_TARGET == HWY_AVX3
constexpr bool kHasPairs = true;  // where the processor has AVX512-BF16; the caller asks cpu_features()
#else
constexpr bool kHasPairs = false;
#endif

template <bool kPairs>
HWY_INLINE FloatVec multiply_add(FloatVec a, FloatVec b, FloatVec sum) {
#if HWY_TARGET == HWY_AVX3
  // Highway 1.0.3 has no target with AVX512-BF16, and GCC refuses the intrinsic inside another target's code.
  if constexpr (kPairs) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
#endif
  return hn::MulAdd(a, b, sum);
}

/// Element i of a row of A for panel_product.
template <bool kPairs>
HWY_INLINE void store_step_elements(FloatVec v, float* row, size_t i) {
  const FloatTag d;
#if HWY_TARGET == HWY_AVX3
  if constexpr (kPairs) {
    __m256i rounded;
    asm("vcvtneps2bf16 %1, %0" : "=v"(rounded) : "v"(v.raw));
    return hn::StoreU(hn::Vec256<uint16_t>{rounded}, hn::Rebind<uint16_t, FloatTag>(),
                      reinterpret_cast<uint16_t*>(row) + i);
  }
#endif
  hn::StoreU(v, d, row + i);
}

template <class B = float>
struct PanelProduct {
  const float* a;   // [rows, steps]
  size_t a_stride;  // steps between rows
  const B* b;       // [steps, panel_columns()]
  size_t b_stride;  // elements between rows
  size_t steps;
  float* c;  // [rows, panel_columns()] float32
  size_t c_stride;
};

template <int kRows, bool kPairs, bool kAccumulate, class B>
HWY_INLINE void panel_rows(const PanelProduct<B>& p, size_t row) {
  const FloatTag d;
  FloatVec sums[kRows][2];
  float* c = p.c + row * p.c_stride;
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    const float* c_row = c + static_cast<size_t>(r) * p.c_stride;
    sums[r][0] = kAccumulate ? hn::LoadU(d, c_row) : hn::Zero(d);
    sums[r][1] = kAccumulate ? hn::LoadU(d, c_row + hn::Lanes(d)) : hn::Zero(d);
  }
  const float* a = p.a + row * p.a_stride;
  const B* b = p.b;
  for (size_t k = 0; k < p.steps; ++k, b += p.b_stride) {
    const FloatVec b0 = load_float(d, b), b1 = load_float(d, b + hn::Lanes(d));
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const FloatVec ar = hn::Set(d, a[static_cast<size_t>(r) * p.a_stride + k]);
      sums[r][0] = multiply_add<kPairs>(ar, b0, sums[r][0]);
      sums[r][1] = multiply_add<kPairs>(ar, b1, sums[r][1]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    float* c_row = c + static_cast<size_t>(r) * p.c_stride;
    hn::StoreU(sums[r][0], d, c_row);
    hn::StoreU(sums[r][1], d, c_row + hn::Lanes(d));
  }
}

/// c (+)= a · b for any number of rows. A row's result does not depend on its neighbours.
template <bool kPairs, bool kAccumulate, class B>
HWY_INLINE void panel_product(const PanelProduct<B>& p, size_t rows) {
  size_t r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) panel_rows<kTileRows, kPairs, kAccumulate>(p, r);
  for (; r + 6 <= rows; r += 6) panel_rows<6, kPairs, kAccumulate>(p, r);
  for (; r + 3 <= rows; r += 3) panel_rows<3, kPairs, kAccumulate>(p, r);
  for (; r < rows; ++r) panel_rows<1, kPairs, kAccumulate>(p, r);
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
