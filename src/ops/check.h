// What every op asks of its tensors before it touches them.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

inline bool is_f32(const Tensor& t) { return t.dtype == DType::kF32; }

/// What the activations of the model are.
inline bool is_f32_or_bf16(const Tensor& t) { return t.dtype == DType::kF32 || t.dtype == DType::kBF16; }

/// Same rank and extent in every dimension; types and strides may differ.
inline bool same_shape(const Tensor& a, const Tensor& b) { return a.rank == b.rank && a.shape == b.shape; }

/// Whether the op runs on CUDA: where its tensors are, all on one device. A context of a GPU still has its workers for
/// tensors in host memory.
template <class... Tensors>
bool runs_on_cuda(const Context& context, const Tensor& first, const Tensors&... others) {
  MSA_CHECK(((others.device == first.device) && ...));
  if (!on_cuda(first)) return false;
  MSA_CHECK(first.device == context.device);
  return true;
}

}  // namespace msa
