#include "ops/fold_heads.h"

#include "ops/check.h"
#include "ops/cuda_ops.h"

namespace msa {

void fold_heads_on_device(Context& context, const Tensor& q, int n_heads, int kv_heads, bool normalise,
                          const Tensor& out) {
  MSA_CHECK(is_f32(q) && is_f32(out) && q.is_dense() && out.is_dense() && q.rows() == out.rows());
  MSA_CHECK(kv_heads >= 1 && n_heads % kv_heads == 0 && q.row_elements() % n_heads == 0);
  MSA_CHECK(q.row_elements() / n_heads * kv_heads == out.row_elements());
  MSA_CHECK(runs_on_cuda(context, q, out));
  if constexpr (kHasCuda) fold_heads_cuda(context, q, n_heads, kv_heads, normalise, out);
}

}  // namespace msa
