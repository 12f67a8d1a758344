// F32 and BF16 into each other.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// from F32|BF16 → to F32|BF16, both [T, n], rows may be strided; rounds to nearest even.
void convert(Context& context, const Tensor& from, const Tensor& to);

}  // namespace msa
