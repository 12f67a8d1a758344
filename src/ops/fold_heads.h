// Query heads of one key head become one vector: the mean over heads of an inner product is linear in the key.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// q F32 [T, H·d] → out F32 [T, G·d], dense, on the context's GPU: each head divided by its Euclidean norm
/// (`normalise`) or by √d, summed over its group of H / G, times weight / H.
struct FoldHeads {
  int n_heads, kv_heads;
  bool normalise;
  float weight = 1;
};
void fold_heads_on_device(Context& context, const Tensor& q, const FoldHeads& how, const Tensor& out);

}  // namespace msa
