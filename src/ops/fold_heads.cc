#include "ops/fold_heads.h"

#include "ops/check.h"
#include "ops/cuda_ops.h"

namespace msa {

void fold_heads_on_device(Context& context, const Tensor& q, const FoldHeads& how, const Tensor& out) {
  MSA_CHECK(is_f32(q) && is_f32(out) && q.is_dense() && out.is_dense() && q.rows() == out.rows());
  MSA_CHECK(how.kv_heads >= 1 && how.n_heads % how.kv_heads == 0 && q.row_elements() % how.n_heads == 0);
  MSA_CHECK(q.row_elements() / how.n_heads * how.kv_heads == out.row_elements());
  MSA_CHECK(runs_on_cuda(context, q, out));
  if constexpr (kHasCuda) fold_heads_cuda(context, q, how, out);
}

}  // namespace msa
