// What lies between the product that makes queries and keys and their use: each head's norm (Qwen3), then its rotation.
#pragma once
#include "core/context.h"
#include "core/tensor.h"
#include "ops/indices.h"
#include "ops/rope.h"

namespace msa {

struct NormRope {
  const RopeTable* table = nullptr;
  Tensor q_norm, k_norm;  // F32 [d]; empty: no norm
  float eps = 0;
};

/// q F32 (on CUDA also BF16) [T, H, d] and k [T, G, d] in place, rows may be strided; positions [T]. One pass over
/// memory on CUDA.
void norm_rope(Context& context, const NormRope& how, const Indices& positions, const Tensor& q, const Tensor& k);

}  // namespace msa
