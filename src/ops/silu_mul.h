// The gated MLP's elementwise step: out = silu(gate) · up.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// gate and up F32|BF16 [T, n] (rows may be strided: two halves of one product), out F32|BF16 [T, n].
void silu_mul(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out);

}  // namespace msa
