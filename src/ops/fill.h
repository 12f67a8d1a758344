// Tensors filled with numbers, the same on every device: weights of a given shape where no file is needed.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// Element i is drawn from (-limit, limit) by a hash of first + i and the seed. t F32|BF16, dense.
void fill_uniform(Context& context, const Tensor& t, float limit, uint32_t seed, int64_t first = 0);

}  // namespace msa
