#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256;

/// One block a row. x [T, n], weight [n], y [T, n]; `x` and `y` may be the same.
template <int N, class In, class Out>
__global__ void rms_norm_kernel(const In* x, int64_t x_row_bytes, const float* weight, float eps, Out* y,
                                int64_t y_row_bytes, int n) {
  __shared__ float sums[kWarp];
  const In* from = row_of(x, blockIdx.x, x_row_bytes);
  Out* to = row_of(y, blockIdx.x, y_row_bytes);
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x) * N; i < n; i += static_cast<int>(blockDim.x) * N) {
    const auto pack = *reinterpret_cast<const Pack<In, N>*>(from + i);
    for (int j = 0; j < N; ++j) squares += load(&pack.values[j]) * load(&pack.values[j]);
  }
  const float scale = 1.0f / sqrtf(block_sum(squares, sums) / static_cast<float>(n) + eps);
  for (int i = static_cast<int>(threadIdx.x) * N; i < n; i += static_cast<int>(blockDim.x) * N) {
    const auto pack = *reinterpret_cast<const Pack<In, N>*>(from + i);
    Pack<Out, N> out;
    for (int j = 0; j < N; ++j) store(&out.values[j], load(&pack.values[j]) * scale * weight[i + j]);
    *reinterpret_cast<Pack<Out, N>*>(to + i) = out;
  }
}

/// One warp a head. x [T, heads, d] in place.
template <class T>
__global__ void rms_norm_heads_kernel(T* x, int64_t row_bytes, const float* weight, float eps, int64_t rows, int heads,
                                      int d) {
  const int64_t head = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (head >= rows * heads) return;
  T* values = row_of(x, head / heads, row_bytes) + head % heads * d;
  float squares = 0;
  for (int i = lane; i < d; i += kWarp) squares += load(values + i) * load(values + i);
  const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(d) + eps);
  for (int i = lane; i < d; i += kWarp) store(values + i, load(values + i) * scale * weight[i]);
}

}  // namespace

void rms_norm_cuda(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  if (x.rows() == 0) return;
  const auto rows = static_cast<unsigned>(x.rows());
  const int n = static_cast<int>(x.dim(1));
  const unsigned threads = n <= 1024 ? kThreads / 2 : kThreads;
  const bool packs = n % 4 == 0 && is_aligned(x, 16) && is_aligned(y, 16);
  with_type(x.dtype, [&](auto* in) {
    with_type(y.dtype, [&](auto* out) {
      using In = Element<decltype(in)>;
      using Out = Element<decltype(out)>;
      const auto kernel = packs ? rms_norm_kernel<4, In, Out> : rms_norm_kernel<1, In, Out>;
      kernel<<<rows, threads, 0, cuda_stream(context)>>>(x.as<In>(), x.row_bytes, weight.as<float>(), eps, y.as<Out>(),
                                                         y.row_bytes, n);
    });
  });
  check_launch("rms_norm");
}

void rms_norm_heads_cuda(Context& context, const Tensor& x, const Tensor& weight, float eps) {
  if (x.elements() == 0) return;
  const int64_t heads = x.rows() * x.dim(1);
  with_type(x.dtype, [&](auto* type) {
    using T = Element<decltype(type)>;
    const auto blocks = static_cast<unsigned>(ceil_div(heads, kThreads / kWarp));
    rms_norm_heads_kernel<<<blocks, kThreads, 0, cuda_stream(context)>>>(x.as<T>(), x.row_bytes, weight.as<float>(),
                                                                         eps, x.rows(), static_cast<int>(x.dim(1)),
                                                                         static_cast<int>(x.dim(2)));
  });
  check_launch("rms_norm_heads");
}

}  // namespace msa
