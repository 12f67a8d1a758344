#include "ops/norm_rope.h"

#include <algorithm>

#include "ops/check.h"
#include "ops/cuda_ops.h"
#include "ops/rms_norm.h"

namespace msa {

void norm_rope(Context& context, const NormRope& how, const Indices& positions, const Tensor& q, const Tensor& k) {
  MSA_CHECK(q.rank == 3 && k.rank == 3 && q.rows() == k.rows() && q.dim(2) == k.dim(2) && q.dtype == k.dtype);
  MSA_CHECK(how.q_norm.empty() == how.k_norm.empty());
  if (runs_on_cuda(context, q, k)) {
    const RopeTable& table = *how.table;
    MSA_CHECK(is_f32_or_bf16(q) && q.dim(2) == table.head_dim && table.device.device == context.device);
    MSA_CHECK(q.rows() == positions.size());
    MSA_CHECK(std::all_of(positions.host.begin(), positions.host.end(),
                          [&](int32_t p) { return p >= 0 && p < table.max_positions; }));
    if constexpr (kHasCuda) return norm_rope_cuda(context, how, positions.on(context), q, k);
  }
  if (!how.q_norm.empty()) {
    rms_norm_heads(context, q, how.q_norm, how.eps);
    rms_norm_heads(context, k, how.k_norm, how.eps);
  }
  rope(context, *how.table, positions, q);
  rope(context, *how.table, positions, k);
}

}  // namespace msa
