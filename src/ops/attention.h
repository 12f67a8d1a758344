// Scaled dot-product attention with grouped key/value heads, softmax in float32.
//
// The type of `out` tells the precision of the products: F32 in float32 throughout (bf16 keys are exact there); BF16 in
// bf16 with float32 sums where the processor has AVX512-BF16, twice as fast. On CUDA the products are bf16 where q, k,
// v and out all are, else float32.
#pragma once
#include <cstdint>
#include <span>

#include "core/context.h"
#include "core/tensor.h"
#include "ops/indices.h"

namespace msa {

/// Stage 1: packed documents, causal inside each, nothing across (DESIGN: "Encode").
/// q F32|BF16 [T, H, d], k and v F32|BF16 [T, G, d] (rows may be strided), out F32|BF16 [T, H, d].
/// The sequences hold T rows in all. Scores are scaled by d^-1/2.
void packed_causal_attention(Context& context, const Tensor& q, const Tensor& k, const Tensor& v,
                             const Sequences& sequences, const Tensor& out);

/// A run of keys and values: k, v [S, G, d] F32 or BF16, rows may be strided.
struct KeyValueSpan {
  Tensor k;
  Tensor v;
};

/// Stages 2 and 3: T query rows see every row of `prefix` (template head, content of the selected chunks) and, of
/// `local` [S0 + T, G, d], row t sees the first S0 + t + 1. q F32|BF16 [T, H, d], out F32|BF16 [T, H, d].
/// On CUDA at most 63 prefix spans.
void prefixed_attention(Context& context, const Tensor& q, std::span<const KeyValueSpan> prefix,
                        const KeyValueSpan& local, const Tensor& out);

}  // namespace msa
