#include "ops/routing_quantise.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace msa {
namespace {

constexpr int kLanes = 32;  // partial sums, as a warp has them: the device gives the same bits

/// Sum of lanes [kLanes], in the order of a warp's butterfly.
double sum_of(const double* lanes) {
  double sums[kLanes];
  std::copy_n(lanes, kLanes, sums);
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    double next[kLanes];
    for (int l = 0; l < kLanes; ++l) next[l] = sums[l] + sums[l ^ offset];
    std::copy_n(next, kLanes, sums);
  }
  return sums[0];
}

/// At least `norm`, as float32; NaN stays NaN.
float norm_above(double norm) {
  const float above = static_cast<float>(norm * (1 + 0x1p-20));
  return above < 0x1p-126f ? 0x1p-126f : above;
}

/// What a vector loses when its elements are rounded to multiples of a scale.
struct Rounding {
  float scale;
  float least, most;  // multiples
  double squares;     // of the error
  int32_t integer_squares;

  float of(float x) const { return scale > 0 ? std::clamp(std::nearbyint(x / scale), least, most) : 0.0f; }
};

// Squares of float32 are exact in double, so that a compiler may fuse the sums or not: the bits are the same.
Rounding rounding_of(const bf16* key, int n, float scale, float least, float most) {
  Rounding r{scale, least, most, 0, 0};
  double squares[kLanes] = {};
  for (int i = 0; i < n; ++i) {
    const float x = to_float(key[i]), rounded = r.of(x);
    const float error = static_cast<float>(static_cast<double>(x) - static_cast<double>(scale) * rounded);
    squares[i % kLanes] += static_cast<double>(error) * static_cast<double>(error);
    r.integer_squares += static_cast<int32_t>(rounded) * static_cast<int32_t>(rounded);
  }
  r.squares = sum_of(squares);
  return r;
}

float packed_scale(int i) { return static_cast<float>(kFirstPackedScale + i) / kPackedScaleParts; }

Rounding best_rounding(const bf16* key, int n, int bits, float largest) {
  if (bits == 8) return rounding_of(key, n, largest / 127, -127, 127);
  Rounding best = rounding_of(key, n, largest * packed_scale(0), -8, 7);
  for (int i = 1; i < kPackedScales; ++i) {
    const Rounding other = rounding_of(key, n, largest * packed_scale(i), -8, 7);
    if (other.squares < best.squares) best = other;
  }
  return best;
}

void write_values(const bf16* key, int n, int bits, const Rounding& rounding, int8_t* out) {
  const auto value = [&](int i) { return static_cast<int>(rounding.of(to_float(key[i]))); };
  if (bits == 8) {
    for (int i = 0; i < n; ++i) out[i] = static_cast<int8_t>(value(i));
    return;
  }
  for (int i = 0; i < n / 2; ++i) {
    const int first = i / kPackedHalf * kPackedWidthStep + i % kPackedHalf;
    const unsigned low = static_cast<unsigned>(value(first)) & 15u;
    const unsigned high = static_cast<unsigned>(value(first + kPackedHalf)) & 15u;
    out[i] = static_cast<int8_t>(low | high << 4);
  }
}

}  // namespace

void quantise_key(const bf16* key, int n, void* out, int bits) {
  MSA_CHECK((bits == 8 && n % kLanes == 0) || (bits == 4 && n % kPackedWidthStep == 0));
  MSA_CHECK(n > 0);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  double squares[kLanes] = {};
  float largest = 0;
  for (int i = 0; i < n; ++i) {
    const float x = to_float(key[i]);
    largest = std::max(largest, std::abs(x));  // a NaN is lost here and found in the squares
    squares[i % kLanes] += static_cast<double>(x) * static_cast<double>(x);
  }
  const float norm = norm_above(std::sqrt(sum_of(squares)));
  bool certain = norm <= kMaxCertifiedNorm;
  Rounding rounding = best_rounding(key, n, bits, certain ? largest : 0.0f);
  if (bits == 4 && rounding.scale > 0 && rounding.scale < kLeastPackedScale) {
    certain = false;
    rounding.scale = 0;
  }
  int8_t* const quantised = static_cast<int8_t*>(out);
  write_values(key, n, bits, rounding, quantised);
  KeyCertificate certificate{0, kInf, kInf, 0};
  if (certain) {
    const double length = std::sqrt(static_cast<double>(rounding.integer_squares));
    certificate = {bits == 8 ? rounding.scale : rounding.scale / kPackedUnit, norm_above(std::sqrt(rounding.squares)),
                   norm, norm_above(static_cast<double>(rounding.scale) * length)};
  }
  std::memcpy(quantised + n * bits / 8, &certificate, sizeof(certificate));
}

ScoreBounds score_bounds(const void* query, const void* key, int n, int key_bits) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const int8_t* const a = static_cast<const int8_t*>(query);
  const int8_t* const b = static_cast<const int8_t*>(key);
  KeyCertificate q, k;
  std::memcpy(&q, a + n, sizeof(q));
  std::memcpy(&k, b + n * key_bits / 8, sizeof(k));
  int32_t product = 0;
  if (key_bits == 8) {
    for (int i = 0; i < n; ++i) product += a[i] * b[i];
  } else {
    for (int i = 0; i < n / 2; ++i) {
      const int first = i / kPackedHalf * kPackedWidthStep + i % kPackedHalf;
      const unsigned both = static_cast<uint8_t>(b[i]);
      product += a[first] * static_cast<int8_t>(both << 4 & 0xf0u);
      product += a[first + kPackedHalf] * static_cast<int8_t>(both & 0xf0u);
    }
  }
  const float middle = static_cast<float>(product) * q.scale * k.scale;
  const float query_error = q.error + accumulation_slack(n) * q.norm;
  const float radius = q.quantised_norm * k.error + query_error * k.norm + kUnderflowSlack;
  if (!(radius < kInf)) return {-kInf, kInf};
  return {middle - radius, middle + radius};
}

}  // namespace msa
