// What every op asks of its tensors before it touches them.
#pragma once
#include "core/tensor.h"

namespace msa {

inline bool is_f32(const Tensor& t) { return t.dtype == DType::kF32 && t.device.type == DeviceType::kCpu; }

/// F32 or BF16 in host memory: what the activations of the model are.
inline bool is_f32_or_bf16(const Tensor& t) {
  return (t.dtype == DType::kF32 || t.dtype == DType::kBF16) && t.device.type == DeviceType::kCpu;
}

/// Same rank and extent in every dimension; types and strides may differ.
inline bool same_shape(const Tensor& a, const Tensor& b) { return a.rank == b.rank && a.shape == b.shape; }

}  // namespace msa
