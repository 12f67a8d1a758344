#include "ops/argmax.h"

#include "ops/check.h"
#include "ops/cuda_ops.h"

namespace msa {

void argmax_on_device(Context& context, const Tensor& x, const Tensor& out) {
  MSA_CHECK(is_f32(x) && x.is_dense() && x.elements() >= 1 && out.dtype == DType::kI32 && out.elements() == 1);
  MSA_CHECK(runs_on_cuda(context, x, out));
  if constexpr (kHasCuda) argmax_cuda(context, x, out);
}

}  // namespace msa
