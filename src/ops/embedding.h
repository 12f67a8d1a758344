// Token embedding: rows of a table of any type.
#pragma once
#include "core/context.h"
#include "core/tensor.h"
#include "ops/indices.h"

namespace msa {

/// out[t] = table[ids[t]]; table [vocab, hidden] of any type (on CUDA F32|BF16), out F32 [T, hidden]. Ids must lie in
/// [0, vocab).
void embedding(Context& context, const Tensor& table, const Indices& ids, const Tensor& out);

/// out[i] = x[rows[i]]; x [T, n] F32|BF16, out [rows, n] of the same type. Rows must lie in [0, T).
void gather_rows(Context& context, const Tensor& x, const Indices& rows, const Tensor& out);

}  // namespace msa
