// RMSNorm: y = x / sqrt(mean(x²) + eps) · weight.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// x F32 (on CUDA also BF16) [T, n] (rows may be strided), weight F32 [n], y F32 or BF16 [T, n]; y may be x.
void rms_norm(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y);

/// Each head normalised by itself (Qwen3's q_norm and k_norm): x F32 (on CUDA also BF16) [T, heads, d] in place, weight
/// F32 [d]. Rows (dimension 0) may be strided.
void rms_norm_heads(Context& context, const Tensor& x, const Tensor& weight, float eps);

}  // namespace msa
