// Decoding one token on CUDA, from its projections to what it attends: norms, rotation, the cache's new row, attention
// in one kernel. The cache's length is read on the device, so that a captured graph stays valid while the cache grows.
#pragma once
#include <span>

#include "core/context.h"
#include "ops/attention.h"
#include "ops/norm_rope.h"

namespace msa {

/// A cache of keys and values with room, and what a decoding step needs beside it, all on the GPU.
struct DecodeCache {
  /// Blocks that share out the keys of one key/value head at most.
  static constexpr int kSplits = 32;
  static constexpr int kMostHeadsPerGroup = 16;
  static constexpr int kMostHeadDim = 256;

  Tensor k, v;      // BF16 [capacity, G, d], dense
  Tensor length;    // I32 [1]: rows before this token
  Tensor counters;  // I32 [G]: zero between steps
  Tensor partials;  // F32 [H, kSplits, d + 2]
};

/// One token's projections, as the product made them.
struct DecodeInput {
  Tensor q;     // BF16 [1, H, d]
  Tensor k, v;  // BF16 [1, G, d]
  NormRope how;
  Tensor position;  // I32 [1], on the GPU
};

/// Whether decode_attention takes these shapes.
bool decode_fits(const DecodeInput& in, std::span<const KeyValueSpan> prefix, const DecodeCache& cache);

/// k, normed and rotated, and v become row `length` of the cache; q, normed and rotated, sees every row of `prefix`
/// (BF16) and the first length + 1 of the cache → out BF16 [1, H, d]. What the two kernels launched before write may be
/// read only from q, k and v.
void decode_attention(Context& context, const DecodeInput& in, std::span<const KeyValueSpan> prefix,
                      const DecodeCache& cache, const Tensor& out);

}  // namespace msa
