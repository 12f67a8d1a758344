// A weight of any type of a file, on the GPU as plain numbers.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// weight [rows, n] of any type, in host memory or on the context's device → a dense copy in `memory` on the device,
/// F32 or BF16 as `type` says. Blocks of a quantised type are decoded on the way.
Tensor upload_weight(Context& context, const Tensor& weight, DType type, Buffer& memory);

}  // namespace msa
