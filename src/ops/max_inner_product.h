// The routing scan: for every key the largest inner product with any query row (DESIGN section 1, "Route").
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// queries F32 [M, n], keys F32|BF16 [N, n] → out F32 [N], out[j] = max over m of ⟨queries[m], keys[j]⟩, float32
/// accumulation. Streams the keys once; the M x N score matrix never reaches memory. M >= 1.
/// F32 keys: float32 products. BF16 keys: where the processor has AVX512-BF16 the queries are rounded to bf16 first,
/// for every M; so scores of two processors may differ by 2^-8 relative to the products' sizes. A score does not depend
/// on where query and key lie or on the number of threads; on M only in the order of its float32 sum.
void max_inner_product(Context& context, const Tensor& queries, const Tensor& keys, const Tensor& out);

}  // namespace msa
