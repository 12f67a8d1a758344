#include "ops/norm_linear.h"

#include "ops/check.h"
#include "ops/cuda_ops.h"
#include "ops/rms_norm.h"
#include "ops/silu_mul.h"

namespace msa {

void norm_linear(Context& context, const Normed& in, const Linear& linear, const Tensor& h, const Tensor& y) {
  if (runs_on_cuda(context, in.x, in.norm, h, y)) {
    if constexpr (kHasCuda) {
      if (norm_linear_cuda(context, in, linear.device_weight(), h, y, /*gated=*/false)) return;
    }
  }
  rms_norm(context, in.x, in.norm, in.eps, h);
  linear.forward(context, h, y);
}

void norm_gate_up(Context& context, const Normed& in, const Linear& gate_up, const Tensor& h, const Tensor& both,
                  const Tensor& mlp) {
  if (runs_on_cuda(context, in.x, in.norm, h, both, mlp)) {
    if constexpr (kHasCuda) {
      if (norm_linear_cuda(context, in, gate_up.device_weight(), h, mlp, /*gated=*/true)) return;
    }
  }
  rms_norm(context, in.x, in.norm, in.eps, h);
  gate_up.forward(context, h, both);
  const int64_t n = mlp.dim(1);
  silu_mul(context, both.slice_columns(0, n), both.slice_columns(n, 2 * n), mlp);
}

}  // namespace msa
