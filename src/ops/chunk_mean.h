// Chunk pooling: the mean over the tokens of each chunk (paper section 3: K̄, V̄, K̄ᴿ).
#pragma once
#include <cstdint>
#include <span>

#include "core/context.h"
#include "core/tensor.h"
#include "ops/indices.h"

namespace msa {

/// Chunks of sequence s are runs of `chunk_tokens` rows of [starts[s], starts[s + 1]), the last one shorter.
int64_t count_chunks(std::span<const int64_t> starts, int chunk_tokens);

/// x F32|BF16 [T, n] (rows may be strided) → out F32|BF16 [count_chunks, n]; float32 accumulation.
/// On CUDA the sequences were uploaded for this chunk_tokens.
void chunk_mean(Context& context, const Tensor& x, const Sequences& sequences, int chunk_tokens, const Tensor& out);

/// x F32 [T, heads, d]: every head divided by its Euclidean norm (at least 1e-12), in place. Rows may be strided.
void l2_normalize_heads(Context& context, const Tensor& x);

}  // namespace msa
