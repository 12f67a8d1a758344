// int8 routing keys with what is needed to bound the score of the key they stand for (docs/routing.md).
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

/// One quantised key: X [n], then its KeyCertificate.
constexpr size_t quantised_key_bytes(int n) { return static_cast<size_t>(n) + sizeof(KeyCertificate); }

/// key [n] → out [quantised_key_bytes(n)], 4-byte aligned; n a multiple of 32.
void quantise_key(const bf16* key, int n, void* out);

/// How far the computed float32 score may lie from the exact product, over |q| |k|: n terms of a tensor core that may
/// truncate instead of rounding, and the roundings of the bounds themselves.
constexpr float accumulation_slack(int n) { return static_cast<float>(n + 16) * 0x1p-22f; }
constexpr float kUnderflowSlack = 0x1p-110f;  // of products too small for a float32
constexpr float kMaxCertifiedNorm = 0x1p60f;  // above, sums could overflow

struct ScoreBounds {
  float lower;
  float upper;
};

/// Where the score of a key lies for a query, both quantised by quantise_key, n elements. -inf, inf if nothing is
/// known.
ScoreBounds score_bounds(const void* query, const void* key, int n);

}  // namespace msa
