#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kRowGroups = kThreads / kWarp;

/// x [T, n], chunks [chunks, 2] (first row, end), out [chunks, n]. grid.x: chunk, grid.y: 32 N columns. The warps share
/// out the chunk's rows.
template <int N, class In, class Out>
__global__ void __launch_bounds__(kThreads)
    chunk_mean_kernel(const In* x, int64_t x_row_bytes, const int2* chunks, Out* out, int64_t out_row_bytes, int n) {
  __shared__ float sums[kRowGroups][kWarp * N];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, group = static_cast<int>(threadIdx.x) / kWarp;
  const int i = (static_cast<int>(blockIdx.y) * kWarp + lane) * N;
  const int2 rows = chunks[blockIdx.x];
  float sum[N] = {};
  if (i < n) {
#pragma unroll 8
    for (int t = rows.x + group; t < rows.y; t += kRowGroups) {
      const auto pack = *reinterpret_cast<const Pack<In, N>*>(row_of(x, t, x_row_bytes) + i);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] += load(&pack.values[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < N; ++j) sums[group][lane * N + j] = sum[j];
  __syncthreads();
  if (group != 0 || i >= n) return;
  const float scale = 1.0f / static_cast<float>(rows.y - rows.x);
  Pack<Out, N> mean;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    float total = 0;
#pragma unroll
    for (int g = 0; g < kRowGroups; ++g) total += sums[g][lane * N + j];
    store(&mean.values[j], total * scale);
  }
  *reinterpret_cast<Pack<Out, N>*>(row_of(out, blockIdx.x, out_row_bytes) + i) = mean;
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
  constexpr int kPack = 4;
  const int n = static_cast<int>(x.dim(1));
  with_type(x.dtype, [&](auto* in) {
    with_type(out.dtype, [&](auto* to) {
      using In = Element<decltype(in)>;
      using Out = Element<decltype(to)>;
      const bool packs = n % kPack == 0 && is_aligned(x, static_cast<int64_t>(kPack * sizeof(In))) &&
                         is_aligned(out, static_cast<int64_t>(kPack * sizeof(Out)));
      const auto kernel = packs ? chunk_mean_kernel<kPack, In, Out> : chunk_mean_kernel<1, In, Out>;
      const dim3 grid(static_cast<unsigned>(out.rows()),
                      static_cast<unsigned>(ceil_div(n, kWarp * (packs ? kPack : 1))));
      kernel<<<grid, kThreads, 0, cuda_stream(context)>>>(
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
