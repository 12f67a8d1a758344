// Decoding one token on CUDA: the cache's length is read on the device, so that a captured graph stays valid while the
// cache grows.
#pragma once
#include <span>

#include "core/context.h"
#include "ops/attention.h"

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

/// Whether the two functions below take these shapes.
bool decode_fits(const Tensor& q, std::span<const KeyValueSpan> prefix, const DecodeCache& cache);

/// k, v BF16 [1, G, d] become row `length` of the cache.
void append_decoded(Context& context, const Tensor& k, const Tensor& v, const DecodeCache& cache);

/// q BF16 [1, H, d] sees every row of `prefix` (BF16) and the first length + 1 of the cache → out BF16 [1, H, d].
void decode_attention(Context& context, const Tensor& q, std::span<const KeyValueSpan> prefix, const DecodeCache& cache,
                      const Tensor& out);

}  // namespace msa
