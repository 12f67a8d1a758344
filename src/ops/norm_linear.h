// A product with the norm before it, and the gated MLP's first half: one kernel each where a few rows are decoded on
// CUDA.
#pragma once
#include "core/context.h"
#include "core/tensor.h"
#include "ops/linear.h"

namespace msa {

struct Normed {
  Tensor x;     // F32 [T, in]
  Tensor norm;  // F32 [in]
  float eps = 0;
};

/// h = RMSNorm(x) F32|BF16 [T, in]; y [T, out] = h · weightᵀ, F32|BF16.
void norm_linear(Context& context, const Normed& in, const Linear& linear, const Tensor& h, const Tensor& y);

/// h as above; mlp [T, out / 2] = silu(first half) · second half of h · gate_upᵀ. `both` [T, out] is room for the
/// product.
void norm_gate_up(Context& context, const Normed& in, const Linear& gate_up, const Tensor& h, const Tensor& both,
                  const Tensor& mlp);

}  // namespace msa
