// int8 and 4-bit routing keys with what is needed to bound the score of the key they stand for (docs/routing.md).
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace msa {

/// Of a vector x and its quantised form scale * X, X int8. Norms are rounded up.
struct alignas(16) KeyCertificate {
  float scale;
  float error;           // >= |x - scale * X|; inf: nothing is known (x is not finite, or its norm exceeds 2^60)
  float norm;            // >= |x|
  float quantised_norm;  // >= |scale * X|
};

constexpr int kPackedWidthStep = 64;  // elements of a 4-bit key come in blocks of so many
constexpr int kPackedHalf = 32;       // byte i of a block holds element i, and element i + 32 in its upper half
constexpr int kPackedUnit = 16;       // 4-bit numbers count as 16 times themselves: their upper half alone is an int8

/// One quantised key: X [n] as int8, or as 4-bit numbers, two a byte; then its KeyCertificate.
constexpr size_t quantised_key_bytes(int n, int bits = 8) {
  return static_cast<size_t>(n * bits / 8) + sizeof(KeyCertificate);
}

/// key [n] → out [quantised_key_bytes(n, bits)], 4-byte aligned; bits: 8 (n a multiple of 32) or 4 (of 64).
void quantise_key(const bf16* key, int n, void* out, int bits = 8);

/// Scales that are tried for 4 bits, over the largest element; the one of the least error is taken.
constexpr int kPackedScales = 8;
constexpr int kFirstPackedScale = 9;            // that and the next ones, over kPackedScaleParts
constexpr float kPackedScaleParts = 112.0f;     // 7 · 16: the last one keeps the largest element
constexpr float kLeastPackedScale = 0x1p-100f;  // below, nothing is known

/// How far the computed float32 score may lie from the exact product, over |q| |k|: n terms of a tensor core that may
/// truncate instead of rounding, and the roundings of the bounds themselves.
constexpr float accumulation_slack(int n) { return static_cast<float>(n + 16) * 0x1p-22f; }
constexpr float kUnderflowSlack = 0x1p-110f;  // of products too small for a float32
constexpr float kMaxCertifiedNorm = 0x1p60f;  // above, sums could overflow

struct ScoreBounds {
  float lower;
  float upper;
};

/// Where the score of a key lies for a query, both quantised by quantise_key (the query to int8), n elements. -inf, inf
/// if nothing is known.
ScoreBounds score_bounds(const void* query, const void* key, int n, int key_bits = 8);

}  // namespace msa
