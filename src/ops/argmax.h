// The largest of a row.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// x F32 [n] on the context's GPU → out I32 [1]: the index of its largest element, the lower of equal ones. A NaN never
/// wins. n >= 1.
void argmax_on_device(Context& context, const Tensor& x, const Tensor& out);

}  // namespace msa
