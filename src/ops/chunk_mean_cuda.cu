#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 128;

/// x [T, n], chunks [chunks, 2] (first row, end), out [chunks, n]; grid.x is the chunk, grid.y a piece of the columns.
template <class In, class Out>
__global__ void chunk_mean_kernel(const In* x, int64_t x_row_bytes, const int2* chunks, Out* out, int64_t out_row_bytes,
                                  int n) {
  const int i = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const int2 rows = chunks[blockIdx.x];
  float sum = 0;
  for (int t = rows.x; t < rows.y; ++t) sum += load(row_of(x, t, x_row_bytes) + i);
  store(row_of(out, blockIdx.x, out_row_bytes) + i, sum * (1.0f / static_cast<float>(rows.y - rows.x)));
}

/// One warp a head. x [T, heads, d] in place.
__global__ void l2_normalize_heads_kernel(float* x, int64_t row_bytes, int64_t rows, int heads, int d) {
  const int64_t head = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (head >= rows * heads) return;
  float* values = row_of(x, head / heads, row_bytes) + head % heads * d;
  float squares = 0;
  for (int i = lane; i < d; i += kWarp) squares += values[i] * values[i];
  const float scale = 1.0f / fmaxf(sqrtf(warp_sum(squares)), 1e-12f);
  for (int i = lane; i < d; i += kWarp) values[i] *= scale;
}

}  // namespace

void chunk_mean_cuda(Context& context, const Tensor& x, const Tensor& chunks, const Tensor& out) {
  if (out.elements() == 0) return;
  const int n = static_cast<int>(x.dim(1));
  const dim3 grid(static_cast<unsigned>(out.rows()), static_cast<unsigned>(ceil_div(n, kThreads)));
  with_type(x.dtype, [&](auto* in) {
    with_type(out.dtype, [&](auto* to) {
      using In = Element<decltype(in)>;
      using Out = Element<decltype(to)>;
      chunk_mean_kernel<<<grid, kThreads, 0, cuda_stream(context)>>>(
          x.as<In>(), x.row_bytes, static_cast<const int2*>(chunks.data), out.as<Out>(), out.row_bytes, n);
    });
  });
  check_launch("chunk_mean");
}

void l2_normalize_heads_cuda(Context& context, const Tensor& x) {
  if (x.elements() == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div(x.rows() * x.dim(1), kThreads / kWarp));
  l2_normalize_heads_kernel<<<blocks, kThreads, 0, cuda_stream(context)>>>(
      x.as<float>(), x.row_bytes, x.rows(), static_cast<int>(x.dim(1)), static_cast<int>(x.dim(2)));
  check_launch("l2_normalize_heads");
}

}  // namespace msa
