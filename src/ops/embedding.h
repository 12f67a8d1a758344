// Token embedding: rows of a table of any type.
#pragma once
#include <cstdint>
#include <span>

#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// out[t] = table[ids[t]]; table [vocab, hidden] of any type, out F32 [T, hidden]. Ids must lie in [0, vocab).
void embedding(Context& context, const Tensor& table, std::span<const int32_t> ids, const Tensor& out);

}  // namespace msa
