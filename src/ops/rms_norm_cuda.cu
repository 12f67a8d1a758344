#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kHeld = 8;  // packs of four that a thread keeps of its row
constexpr int kPack = 4;

/// kWarpsOfRow warps a row, which they hold in registers. x [rows, n], weight [n], y [rows, n]; `x` and `y` may be the
/// same. n is a multiple of 4.
template <int kWarpsOfRow, class Out>
__global__ void __launch_bounds__(kThreads)
    rms_norm_held_kernel(const float* x, int64_t x_row_bytes, const float* weight, float eps, Out* y,
                         int64_t y_row_bytes, int64_t rows, int n) {
  constexpr int kThreadsOfRow = kWarpsOfRow * kWarp, kRows = kThreads / kThreadsOfRow;
  __shared__ float sums[kThreads / kWarp];
  using Values = Pack<float, kPack>;
  const int thread = static_cast<int>(threadIdx.x) % kThreadsOfRow;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kThreadsOfRow;
  const bool is_row = row < rows;
  const float* from = row_of(x, is_row ? row : 0, x_row_bytes);
  Values held[kHeld];
  float squares = 0;
#pragma unroll
  for (int s = 0; s < kHeld; ++s) {
    const int i = (thread + s * kThreadsOfRow) * kPack;
    held[s] = is_row && i < n ? *reinterpret_cast<const Values*>(from + i) : Values{};
#pragma unroll
    for (int j = 0; j < kPack; ++j) squares += held[s].values[j] * held[s].values[j];
  }
  squares = warp_sum(squares);
  if constexpr (kWarpsOfRow > 1) {
    if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = squares;
    __syncthreads();
    squares = 0;
    const int first = static_cast<int>(threadIdx.x) / kThreadsOfRow * kWarpsOfRow;
#pragma unroll
    for (int w = 0; w < kWarpsOfRow; ++w) squares += sums[first + w];
  }
  if (!is_row) return;
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(n) + eps);
  Out* to = row_of(y, row, y_row_bytes);
#pragma unroll
  for (int s = 0; s < kHeld; ++s) {
    const int i = (thread + s * kThreadsOfRow) * kPack;
    if (i >= n) break;
    const auto w = *reinterpret_cast<const Values*>(weight + i);
    Pack<Out, kPack> out;
#pragma unroll
    for (int j = 0; j < kPack; ++j) store(&out.values[j], held[s].values[j] * scale * w.values[j]);
    *reinterpret_cast<Pack<Out, kPack>*>(to + i) = out;
  }
}

/// One block a row. x [T, n], weight [n], y [T, n]; `x` and `y` may be the same.
template <class In, class Out>
__global__ void rms_norm_kernel(const In* x, int64_t x_row_bytes, const float* weight, float eps, Out* y,
                                int64_t y_row_bytes, int n) {
  __shared__ float sums[kWarp];
  const In* from = row_of(x, blockIdx.x, x_row_bytes);
  Out* to = row_of(y, blockIdx.x, y_row_bytes);
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
    squares += load(from + i) * load(from + i);
  }
  const float scale = 1.0f / sqrtf(block_sum(squares, sums) / static_cast<float>(n) + eps);
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
    store(to + i, load(from + i) * scale * weight[i]);
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

template <int kWarpsOfRow, class Out>
void launch_held(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  constexpr int64_t kRows = kThreads / (kWarpsOfRow * kWarp);
  const auto blocks = static_cast<unsigned>(ceil_div(x.rows(), kRows));
  rms_norm_held_kernel<kWarpsOfRow, Out>
      <<<blocks, kThreads, 0, cuda_stream(context)>>>(x.as<float>(), x.row_bytes, weight.as<float>(), eps, y.as<Out>(),
                                                      y.row_bytes, x.rows(), static_cast<int>(x.dim(1)));
}

/// False, and nothing done, where a row is too long for registers or its elements do not come in packs.
template <class Out>
bool rms_norm_held(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  constexpr int64_t kOfWarp = int64_t{kHeld} * kPack * kWarp;
  const int64_t n = x.dim(1);
  const auto bytes = static_cast<int64_t>(kPack * sizeof(Out));
  if (x.dtype != DType::kF32 || n % kPack != 0 || n > 8 * kOfWarp) return false;
  if (!is_aligned(x, 16) || !is_aligned(weight.reshape({1, n}), 16) || !is_aligned(y, bytes)) return false;
  if (n <= kOfWarp)
    launch_held<1, Out>(context, x, weight, eps, y);
  else if (n <= 2 * kOfWarp)
    launch_held<2, Out>(context, x, weight, eps, y);
  else if (n <= 4 * kOfWarp)
    launch_held<4, Out>(context, x, weight, eps, y);
  else
    launch_held<8, Out>(context, x, weight, eps, y);
  return true;
}

}  // namespace

void rms_norm_cuda(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  if (x.rows() == 0) return;
  const auto rows = static_cast<unsigned>(x.rows());
  const int n = static_cast<int>(x.dim(1));
  const unsigned threads = n <= 1024 ? kThreads / 2 : kThreads;
  with_type(x.dtype, [&](auto* in) {
    with_type(y.dtype, [&](auto* out) {
      using In = Element<decltype(in)>;
      using Out = Element<decltype(out)>;
      if (rms_norm_held<Out>(context, x, weight, eps, y)) return;
      rms_norm_kernel<In, Out><<<rows, threads, 0, cuda_stream(context)>>>(x.as<In>(), x.row_bytes, weight.as<float>(),
                                                                           eps, y.as<Out>(), y.row_bytes, n);
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
