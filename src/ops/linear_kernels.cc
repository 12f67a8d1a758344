#include "ops/linear_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "core/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace msa {
namespace {

// Branchless, so that compilers vectorise loops over it.
inline bf16 round_to_bf16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const uint32_t quiet = (u >> 16) | 0x40u;
  return {static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded)};
}

[[gnu::always_inline]] inline void narrow_loop(const float* from, bf16* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = round_to_bf16(from[i]);
}

[[gnu::always_inline]] inline void widen_loop(const bf16* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = to_float(from[i]);
}

[[gnu::always_inline]] inline void scale_loop(const IntegerSums& in, float* out) {
  for (int64_t i = 0; i < in.n; ++i) {
    out[i] = static_cast<float>(in.sums[i] - in.offsets[i]) * (in.scales[i] * in.scale);
  }
}

[[gnu::always_inline]] inline void add_loop(const float* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += from[i];
}

// Largest magnitude through integer comparison (the bits of non-negative floats are ordered), rounding to nearest even
// through the addition of 1.5 · 2^23: both vectorise without -ffast-math.
[[gnu::always_inline]] inline float quantise_loop(const float* x, int64_t n, int32_t offset, uint8_t* out) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  constexpr float kRound = 12582912.0f;
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  const float amax = std::bit_cast<float>(largest);
  const bool finite = largest < kInfinity;
  // The bound keeps the reciprocal finite; smaller numbers become zeros.
  const float inverse = finite && amax > 1e-35f ? 127.0f / amax : 0.0f;
  const int32_t base = std::bit_cast<int32_t>(kRound) - offset;
  for (int64_t i = 0; i < n; ++i) {
    const float scaled = finite ? x[i] * inverse : 0.0f;
    out[i] = static_cast<uint8_t>(std::bit_cast<int32_t>(scaled + kRound) - base);
  }
  return finite ? amax / 127.0f : std::numeric_limits<float>::quiet_NaN();
}

#if defined(__x86_64__)

#define MSA_AVX2 [[gnu::target("avx2,fma")]]
#define MSA_AVX512 [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl")]]
#define MSA_AVX512_BF16 [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]]

MSA_AVX2 void narrow_avx2(const float* from, bf16* to, int64_t n) { narrow_loop(from, to, n); }
MSA_AVX2 void widen_avx2(const bf16* from, float* to, int64_t n) { widen_loop(from, to, n); }

MSA_AVX2 void scale_avx2(const IntegerSums& in, float* out) { scale_loop(in, out); }
MSA_AVX2 void add_avx2(const float* from, float* to, int64_t n) { add_loop(from, to, n); }
MSA_AVX2 float quantise_avx2(const float* x, int64_t n, int32_t offset, uint8_t* out) {
  return quantise_loop(x, n, offset, out);
}

constexpr int kVectors = 4;  // of 16 floats: the 64 columns of a block

template <int kRows>
MSA_AVX512 void block_product_f32(const BlockProduct& p) {
  __m512 sums[kRows][kVectors];
  for (auto& row : sums)
    for (auto& sum : row) sum = _mm512_setzero_ps();
  const float* w = static_cast<const float*>(p.block);
  for (int64_t k = 0; k < p.in; ++k, w += kColumnBlock) {
    __m512 weights[kVectors];
    for (int v = 0; v < kVectors; ++v) weights[v] = _mm512_loadu_ps(w + 16 * v);
    for (int r = 0; r < kRows; ++r) {
      const __m512 x = _mm512_set1_ps(static_cast<const float*>(p.x[r])[k]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_fmadd_ps(weights[v], x, sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(p.sums + r * kColumnBlock + 16 * v, sums[r][v]);
}

template <int kRows>
MSA_AVX512_BF16 inline void add_pairs(__m512 (&sums)[kRows][kVectors], const uint32_t* w, const uint32_t* pairs) {
  __m512i weights[kVectors];
  for (int v = 0; v < kVectors; ++v) weights[v] = _mm512_loadu_si512(w + 16 * v);
  for (int r = 0; r < kRows; ++r) {
    const __m512bh x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(pairs[r])));
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = _mm512_dpbf16_ps(sums[r][v], reinterpret_cast<__m512bh>(weights[v]), x);
    }
  }
}

template <int kRows>
MSA_AVX512_BF16 void block_product_bf16(const BlockProduct& p) {
  __m512 sums[kRows][kVectors];
  for (auto& row : sums)
    for (auto& sum : row) sum = _mm512_setzero_ps();
  const uint32_t* w = static_cast<const uint32_t*>(p.block);  // pairs of consecutive k
  uint32_t pairs[kRows];
  int64_t k = 0;
  for (; k + 2 <= p.in; k += 2, w += kColumnBlock) {
    for (int r = 0; r < kRows; ++r) std::memcpy(pairs + r, static_cast<const uint16_t*>(p.x[r]) + k, 4);
    add_pairs<kRows>(sums, w, pairs);
  }
  if (k < p.in) {  // the last element is paired with zero
    for (int r = 0; r < kRows; ++r) pairs[r] = static_cast<const uint16_t*>(p.x[r])[k];
    add_pairs<kRows>(sums, w, pairs);
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(p.sums + r * kColumnBlock + 16 * v, sums[r][v]);
}

template <template <int> class Kernel>
void for_rows(const BlockProduct& p) {
  static_assert(kRowsPerPass == 4);
  switch (p.rows) {
    case 1: return Kernel<1>::run(p);
    case 2: return Kernel<2>::run(p);
    case 3: return Kernel<3>::run(p);
    default: return Kernel<4>::run(p);
  }
}

template <int kRows>
struct F32Kernel {
  static void run(const BlockProduct& p) { block_product_f32<kRows>(p); }
};
template <int kRows>
struct Bf16Kernel {
  static void run(const BlockProduct& p) { block_product_bf16<kRows>(p); }
};

#endif

void narrow(const float* from, bf16* to, int64_t n) {
#if defined(__x86_64__)
  if (cpu_features().avx2) return narrow_avx2(from, to, n);
#endif
  narrow_loop(from, to, n);
}

void widen(const bf16* from, float* to, int64_t n) {
#if defined(__x86_64__)
  if (cpu_features().avx2) return widen_avx2(from, to, n);
#endif
  widen_loop(from, to, n);
}

}  // namespace

BlockProductKernel block_product_kernel(DType operand) {
#if defined(__x86_64__)
  if (operand == DType::kF32 && cpu_features().avx512) return for_rows<F32Kernel>;
  if (operand == DType::kBF16 && cpu_features().avx512_bf16) return for_rows<Bf16Kernel>;
#endif
  return nullptr;
}

void convert(const void* from, DType from_type, void* to, DType to_type, int64_t n) {
  if (from_type == to_type) {
    std::memcpy(to, from, static_cast<size_t>(n * traits(from_type).block_bytes));
  } else if (to_type == DType::kBF16) {
    narrow(static_cast<const float*>(from), static_cast<bf16*>(to), n);
  } else {
    widen(static_cast<const bf16*>(from), static_cast<float*>(to), n);
  }
}

void store_sums(const float* sums, int64_t n, void* y, DType y_type, bool accumulate) {
  if (!accumulate) return convert(sums, DType::kF32, y, y_type, n);
  auto* to = static_cast<float*>(y);
#if defined(__x86_64__)
  if (cpu_features().avx2) return add_avx2(sums, to, n);
#endif
  add_loop(sums, to, n);
}

float quantise_to_bytes(const float* x, int64_t n, int32_t offset, uint8_t* out) {
#if defined(__x86_64__)
  if (cpu_features().avx2) return quantise_avx2(x, n, offset, out);
#endif
  return quantise_loop(x, n, offset, out);
}

void scale_integers(const IntegerSums& in, float* out) {
#if defined(__x86_64__)
  if (cpu_features().avx2) return scale_avx2(in, out);
#endif
  scale_loop(in, out);
}

}  // namespace msa
