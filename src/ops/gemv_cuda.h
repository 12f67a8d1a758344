// Products with very few rows (decoding): the weight is read once, at the speed of memory.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa::cuda {

/// y = x · weightᵀ, with what stands before and after it in a layer.
struct Gemv {
  static constexpr int kMostRows = 4;

  Tensor weight;  // BF16 [out, in] dense
  Tensor x;       // BF16 [T, in]; F32 where `norm` is given
  Tensor norm;    // F32 [in]: x is normed first (RMSNorm); or empty
  float eps = 0;
  Tensor h;                 // BF16 [T, in]: where the normed x is left; or empty
  Tensor y;                 // BF16 or F32 [T, out]; with `gated` BF16 [T, out / 2]
  bool accumulate = false;  // adds to y (F32)
  bool gated = false;       // y = silu(first half of the outputs) · second half; with `norm`
};

/// Whether the kernel takes these rows, sizes and alignments.
bool gemv_fits(const Gemv& g);
void gemv(Context& context, const Gemv& g);

}  // namespace msa::cuda
