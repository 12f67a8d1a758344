#include "ops/linear_quantised_kernels.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "core/cpu.h"
#include "core/dtype.h"

#if defined(__x86_64__)
// GCC 12 warns of its own headers' way to say "undefined" (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

namespace msa {
namespace {

void nibbles_portable(const PanelProduct& p) {
  std::fill(p.sums, p.sums + p.rows * kPanelRows, 0.0f);
  for (int64_t b = 0; b < p.blocks; ++b) {
    const NibblePanelBlock& w = static_cast<const NibblePanelBlock*>(p.panel)[b];
    for (int r = 0; r < p.rows; ++r) {
      const ActivationBlock& x = p.x[r][b];
      for (int64_t o = 0; o < kPanelRows; ++o) {
        int dot = 0;
        for (int e = 0; e < 16; ++e) {
          const uint8_t byte = w.quants[e / 4][o * 4 + e % 4];
          dot += (byte & 15) * x.quants[e] + (byte >> 4) * x.quants[16 + e];
        }
        const float scale = half_to_float(w.scales[o]);
        const float minimum = half_to_float(w.minima[o]);
        p.sums[r * kPanelRows + o] += static_cast<float>(dot) * x.scale * scale + x.scaled_sum * minimum;
      }
    }
  }
}

void bytes_portable(const PanelProduct& p) {
  std::fill(p.sums, p.sums + p.rows * kPanelRows, 0.0f);
  for (int64_t b = 0; b < p.blocks; ++b) {
    const BytePanelBlock& w = static_cast<const BytePanelBlock*>(p.panel)[b];
    for (int r = 0; r < p.rows; ++r) {
      const ActivationBlock& x = p.x[r][b];
      for (int64_t o = 0; o < kPanelRows; ++o) {
        int dot = x.minus_offset;
        for (int e = 0; e < 32; ++e) dot += w.quants[e / 4][o * 4 + e % 4] * x.quants[e];
        p.sums[r * kPanelRows + o] += static_cast<float>(dot) * x.scale * half_to_float(w.scales[o]);
      }
    }
  }
}

// Largest magnitude through integer comparison (the bits of non-negative floats are ordered), rounding to nearest even
// through the addition of 1.5 · 2^23: both vectorise without -ffast-math.
[[gnu::always_inline]] inline void quantise_loop(const float* x, int64_t blocks, ActivationBlock* out) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  constexpr float kRound = 12582912.0f;
  for (int64_t b = 0; b < blocks; ++b, x += kQuantBlock) {
    ActivationBlock& block = out[b];
    uint32_t bits[kQuantBlock];
    std::memcpy(bits, x, sizeof(bits));
    uint32_t largest = 0;
    for (const uint32_t u : bits) largest = std::max(largest, u & 0x7fffffffu);
    const float amax = std::bit_cast<float>(largest);
    const bool finite = largest < kInfinity;
    // The bound keeps the reciprocal finite; smaller activations become zeros.
    const float inverse = finite && amax > 1e-35f ? 127.0f / amax : 0.0f;
    int32_t sum = 0;
    for (int64_t i = 0; i < kQuantBlock; ++i) {
      const float scaled = finite ? x[i] * inverse : 0.0f;
      const int32_t q = std::bit_cast<int32_t>(scaled + kRound) - std::bit_cast<int32_t>(kRound);
      block.quants[i] = static_cast<int8_t>(q);
      sum += q;
    }
    block.scale = finite ? amax / 127.0f : std::numeric_limits<float>::quiet_NaN();
    block.scaled_sum = block.scale * static_cast<float>(sum);
    block.minus_offset = -128 * sum;
    block.unused = 0;
  }
}

#if defined(__x86_64__)

#define MSA_AVX2 [[gnu::target("avx2,fma,f16c")]]
#define MSA_VNNI [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]]

MSA_AVX2 void quantise_avx2(const float* x, int64_t blocks, ActivationBlock* out) { quantise_loop(x, blocks, out); }

inline int32_t four_bytes(const int8_t* p) {
  int32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

MSA_VNNI inline __m512 sixteen_halves(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

template <int kRows>
struct NibblesVnni {
  MSA_VNNI static void run(const PanelProduct& p) {
    __m512 sums[kRows];
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    const __m512i low_mask = _mm512_set1_epi8(15);
    for (int64_t b = 0; b < p.blocks; ++b) {
      const NibblePanelBlock& w = static_cast<const NibblePanelBlock*>(p.panel)[b];
      __m512i low[4], high[4];
      for (int j = 0; j < 4; ++j) {
        const __m512i both = _mm512_loadu_si512(w.quants[j]);
        low[j] = _mm512_and_si512(both, low_mask);
        high[j] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low_mask);
      }
      const __m512 scale = sixteen_halves(w.scales);
      const __m512 minimum = sixteen_halves(w.minima);
      for (int r = 0; r < kRows; ++r) {
        const ActivationBlock& x = p.x[r][b];
        __m512i dot_low = _mm512_setzero_si512();
        __m512i dot_high = _mm512_setzero_si512();
        for (int j = 0; j < 4; ++j) {
          dot_low = _mm512_dpbusd_epi32(dot_low, low[j], _mm512_set1_epi32(four_bytes(x.quants + 4 * j)));
          dot_high = _mm512_dpbusd_epi32(dot_high, high[j], _mm512_set1_epi32(four_bytes(x.quants + 16 + 4 * j)));
        }
        const __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(dot_low, dot_high));
        sums[r] = _mm512_fmadd_ps(_mm512_mul_ps(dot, _mm512_set1_ps(x.scale)), scale, sums[r]);
        sums[r] = _mm512_fmadd_ps(_mm512_set1_ps(x.scaled_sum), minimum, sums[r]);
      }
    }
    for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(p.sums + r * kPanelRows, sums[r]);
  }
};

template <int kRows>
struct BytesVnni {
  MSA_VNNI static void run(const PanelProduct& p) {
    __m512 sums[kRows];
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    for (int64_t b = 0; b < p.blocks; ++b) {
      const BytePanelBlock& w = static_cast<const BytePanelBlock*>(p.panel)[b];
      __m512i weights[8];
      for (int j = 0; j < 8; ++j) weights[j] = _mm512_loadu_si512(w.quants[j]);
      const __m512 scale = sixteen_halves(w.scales);
      for (int r = 0; r < kRows; ++r) {
        const ActivationBlock& x = p.x[r][b];
        __m512i dot_even = _mm512_set1_epi32(x.minus_offset);
        __m512i dot_odd = _mm512_setzero_si512();
        for (int j = 0; j < 8; j += 2) {
          dot_even = _mm512_dpbusd_epi32(dot_even, weights[j], _mm512_set1_epi32(four_bytes(x.quants + 4 * j)));
          dot_odd = _mm512_dpbusd_epi32(dot_odd, weights[j + 1], _mm512_set1_epi32(four_bytes(x.quants + 4 * j + 4)));
        }
        const __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(dot_even, dot_odd));
        sums[r] = _mm512_fmadd_ps(_mm512_mul_ps(dot, _mm512_set1_ps(x.scale)), scale, sums[r]);
      }
    }
    for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(p.sums + r * kPanelRows, sums[r]);
  }
};

MSA_AVX2 inline __m256 eight_halves(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

template <int kRows>
struct NibblesAvx2 {
  MSA_AVX2 static void run(const PanelProduct& p) {
    const __m256i low_mask = _mm256_set1_epi8(15);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int half = 0; half < 2; ++half) {
      __m256 sums[kRows];
      for (auto& sum : sums) sum = _mm256_setzero_ps();
      for (int64_t b = 0; b < p.blocks; ++b) {
        const NibblePanelBlock& w = static_cast<const NibblePanelBlock*>(p.panel)[b];
        const __m256 scale = eight_halves(w.scales + 8 * half);
        const __m256 minimum = eight_halves(w.minima + 8 * half);
        for (int r = 0; r < kRows; ++r) {
          const ActivationBlock& x = p.x[r][b];
          __m256i dot = _mm256_setzero_si256();  // 16 bits: at most 16 · 15 · 127 = 30480
          for (int j = 0; j < 4; ++j) {
            const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.quants[j] + 32 * half));
            const __m256i low = _mm256_and_si256(both, low_mask);
            const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_mask);
            const __m256i x_low = _mm256_set1_epi32(four_bytes(x.quants + 4 * j));
            const __m256i x_high = _mm256_set1_epi32(four_bytes(x.quants + 16 + 4 * j));
            dot = _mm256_add_epi16(dot, _mm256_maddubs_epi16(low, x_low));
            dot = _mm256_add_epi16(dot, _mm256_maddubs_epi16(high, x_high));
          }
          const __m256 wide = _mm256_cvtepi32_ps(_mm256_madd_epi16(dot, ones));
          sums[r] = _mm256_fmadd_ps(_mm256_mul_ps(wide, _mm256_set1_ps(x.scale)), scale, sums[r]);
          sums[r] = _mm256_fmadd_ps(_mm256_set1_ps(x.scaled_sum), minimum, sums[r]);
        }
      }
      for (int r = 0; r < kRows; ++r) _mm256_storeu_ps(p.sums + r * kPanelRows + 8 * half, sums[r]);
    }
  }
};

template <int kRows>
struct BytesAvx2 {
  MSA_AVX2 static void run(const PanelProduct& p) {
    const __m256i sign_bit = _mm256_set1_epi8(-128);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int half = 0; half < 2; ++half) {
      __m256 sums[kRows];
      for (auto& sum : sums) sum = _mm256_setzero_ps();
      for (int64_t b = 0; b < p.blocks; ++b) {
        const BytePanelBlock& w = static_cast<const BytePanelBlock*>(p.panel)[b];
        const __m256 scale = eight_halves(w.scales + 8 * half);
        for (int r = 0; r < kRows; ++r) {
          const ActivationBlock& x = p.x[r][b];
          __m256i dot = _mm256_setzero_si256();
          for (int j = 0; j < 8; ++j) {
            const __m256i weights = _mm256_xor_si256(
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.quants[j] + 32 * half)), sign_bit);
            // |w| as unsigned times x with the sign of w: pairs stay below 2 · 128 · 127, where unsigned bytes of 255
            // would saturate.
            const __m256i signed_x = _mm256_sign_epi8(_mm256_set1_epi32(four_bytes(x.quants + 4 * j)), weights);
            const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), signed_x);
            dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, ones));
          }
          sums[r] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_set1_ps(x.scale)), scale, sums[r]);
        }
      }
      for (int r = 0; r < kRows; ++r) _mm256_storeu_ps(p.sums + r * kPanelRows + 8 * half, sums[r]);
    }
  }
};

template <template <int> class Kernel>
void for_rows(const PanelProduct& p) {
  static_assert(kQuantRowsPerPass == 4);
  switch (p.rows) {
    case 1: return Kernel<1>::run(p);
    case 2: return Kernel<2>::run(p);
    case 3: return Kernel<3>::run(p);
    default: return Kernel<4>::run(p);
  }
}

#endif

std::array<PanelKernels, 4> find_kernels() {
  std::array<PanelKernels, 4> found{};
  size_t n = 0;
#if defined(__x86_64__)
  if (cpu_features().avx512_vnni) found[n++] = {"vnni", for_rows<NibblesVnni>, for_rows<BytesVnni>};
  if (cpu_features().avx2) found[n++] = {"avx2", for_rows<NibblesAvx2>, for_rows<BytesAvx2>};
#endif
  found[n++] = {"portable", nibbles_portable, bytes_portable};
  return found;
}

}  // namespace

const PanelKernels* available_panel_kernels() {
  static const std::array<PanelKernels, 4> kernels = find_kernels();
  return kernels.data();
}

PanelKernel nibble_panel_kernel() { return available_panel_kernels()->nibbles; }
PanelKernel byte_panel_kernel() { return available_panel_kernels()->bytes; }

void quantise_activations(const float* x, int64_t blocks, ActivationBlock* out) {
#if defined(__x86_64__)
  if (cpu_features().avx2) return quantise_avx2(x, blocks, out);
#endif
  quantise_loop(x, blocks, out);
}

}  // namespace msa
