// Query heads of one key head become one vector: the mean over heads of an inner product is linear in the key.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// q F32 [T, H·d] → out F32 [T, G·d], dense, on the context's GPU: each head divided by its Euclidean norm
/// (`normalise`) or by √d, summed over its group of H / G, divided by H.
void fold_heads_on_device(Context& context, const Tensor& q, int n_heads, int kv_heads, bool normalise,
                          const Tensor& out);

}  // namespace msa
