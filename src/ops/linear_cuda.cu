#include "ops/cuda_ops.h"
#include "ops/gemv_cuda.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

/// x in the weight's type, in scratch where it has to be converted.
Tensor operand(Context& context, const Tensor& x, DType type) {
  if (x.dtype == type) return x;
  const Tensor converted = context.scratch[0].tensor(type, {x.rows(), x.dim(1)}, context.device);
  convert_cuda(context, x, converted);
  return converted;
}

void multiply(Context& context, const Tensor& weight, const Tensor& x, const Tensor& y, bool accumulate) {
  Product p;
  p.rows = x.rows();
  p.in = x.dim(1);
  p.out = y.dim(1);
  p.operand = weight.dtype;
  p.result = y.dtype;
  p.accumulate = accumulate;
  p.x_stride = x.row_bytes / traits(x.dtype).block_bytes;
  p.y_stride = y.row_bytes / traits(y.dtype).block_bytes;
  p.x = x.data;
  p.weight = weight.data;
  p.y = y.data;
  context.cuda->blas.multiply(p, cuda_stream(context));
}

}  // namespace

void linear_cuda(Context& context, const Tensor& weight, const Tensor& x, const Tensor& y, bool accumulate) {
  const Tensor in = operand(context, x, weight.dtype);
  cuda::Gemv few;
  few.weight = weight, few.x = in, few.y = y, few.accumulate = accumulate;
  if (cuda::gemv_fits(few)) return cuda::gemv(context, few);
  if (y.dtype == DType::kF32 || weight.dtype == DType::kBF16) return multiply(context, weight, in, y, accumulate);
  const Tensor sums = context.scratch[1].tensor(DType::kF32, {y.rows(), y.dim(1)}, context.device);
  multiply(context, weight, in, sums, false);
  convert_cuda(context, sums, y);
}

bool norm_linear_cuda(Context& context, const Normed& in, const Tensor& weight, const Tensor& h, const Tensor& y,
                      bool gated) {
  cuda::Gemv few;
  few.weight = weight, few.x = in.x, few.norm = in.norm, few.eps = in.eps, few.h = h, few.y = y, few.gated = gated;
  if (h.dtype != DType::kBF16 || !cuda::gemv_fits(few)) return false;
  MSA_CHECK(y.dim(1) == weight.rows() / (gated ? 2 : 1) && h.dim(1) == weight.dim(1) && in.x.dim(1) == weight.dim(1));
  MSA_CHECK(h.rows() == in.x.rows() && y.rows() == in.x.rows() && in.norm.is_dense());
  cuda::gemv(context, few);
  return true;
}

}  // namespace msa
