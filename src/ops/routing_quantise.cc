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

}  // namespace

// Squares of float32 are exact in double, so that a compiler may fuse the sums or not: the bits are the same.
void quantise_key(const bf16* key, int n, void* out) {
  MSA_CHECK(n > 0 && n % kLanes == 0);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  int8_t* const quantised = static_cast<int8_t*>(out);
  double squares[kLanes] = {}, error_squares[kLanes] = {};
  float largest = 0;
  int32_t integer_squares = 0;
  for (int i = 0; i < n; ++i) {
    const float x = to_float(key[i]);
    largest = std::max(largest, std::abs(x));  // a NaN is lost here and found in the squares
    squares[i % kLanes] += static_cast<double>(x) * static_cast<double>(x);
  }
  const float norm = norm_above(std::sqrt(sum_of(squares)));
  const bool certain = norm <= kMaxCertifiedNorm;
  const float scale = certain ? largest / 127 : 0;
  for (int i = 0; i < n; ++i) {
    const float x = to_float(key[i]);
    const float rounded = scale > 0 ? std::clamp(std::nearbyint(x / scale), -127.0f, 127.0f) : 0.0f;
    quantised[i] = static_cast<int8_t>(rounded);
    const float error = static_cast<float>(static_cast<double>(x) - static_cast<double>(scale) * rounded);
    error_squares[i % kLanes] += static_cast<double>(error) * static_cast<double>(error);
    integer_squares += quantised[i] * quantised[i];
  }
  KeyCertificate certificate{0, kInf, kInf, 0};
  if (certain) {
    certificate = {scale, norm_above(std::sqrt(sum_of(error_squares))), norm,
                   norm_above(static_cast<double>(scale) * std::sqrt(static_cast<double>(integer_squares)))};
  }
  std::memcpy(quantised + n, &certificate, sizeof(certificate));
}

ScoreBounds score_bounds(const void* query, const void* key, int n) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const int8_t* const a = static_cast<const int8_t*>(query);
  const int8_t* const b = static_cast<const int8_t*>(key);
  KeyCertificate q, k;
  std::memcpy(&q, a + n, sizeof(q));
  std::memcpy(&k, b + n, sizeof(k));
  int32_t product = 0;
  for (int i = 0; i < n; ++i) product += a[i] * b[i];
  const float middle = static_cast<float>(product) * q.scale * k.scale;
  const float query_error = q.error + accumulation_slack(n) * q.norm;
  const float radius = q.quantised_norm * k.error + query_error * k.norm + kUnderflowSlack;
  if (!(radius < kInf)) return {-kInf, kInf};
  return {middle - radius, middle + radius};
}

}  // namespace msa
