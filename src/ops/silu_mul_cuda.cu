#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256;

/// x / (1 + e^-x) with e^-|x|, so that nothing overflows.
__device__ float silu(float x) {
  const float e = expf(-fabsf(x));
  return x * ((x >= 0 ? 1.0f : e) / (1.0f + e));
}

/// gate, up, out [T, n]; grid.y is the row.
template <int N, class In, class Out>
__global__ void silu_mul_kernel(const In* gate, int64_t gate_row_bytes, const In* up, int64_t up_row_bytes, Out* out,
                                int64_t out_row_bytes, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (i >= n) return;
  const auto g = *reinterpret_cast<const Pack<In, N>*>(row_of(gate, blockIdx.y, gate_row_bytes) + i);
  const auto u = *reinterpret_cast<const Pack<In, N>*>(row_of(up, blockIdx.y, up_row_bytes) + i);
  Pack<Out, N> y;
  for (int j = 0; j < N; ++j) store(&y.values[j], silu(load(&g.values[j])) * load(&u.values[j]));
  *reinterpret_cast<Pack<Out, N>*>(row_of(out, blockIdx.y, out_row_bytes) + i) = y;
}

}  // namespace

void silu_mul_cuda(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out) {
  constexpr int kPack = 8;
  constexpr int64_t kMostRows = 65535;  // of grid.y
  const int n = static_cast<int>(gate.dim(1));
  for (int64_t begin = 0; begin < gate.rows(); begin += kMostRows) {
    const int64_t end = std::min(gate.rows(), begin + kMostRows);
    const Tensor g = gate.slice_rows(begin, end), u = up.slice_rows(begin, end), y = out.slice_rows(begin, end);
    with_type(g.dtype, [&](auto* in) {
      with_type(y.dtype, [&](auto* to) {
        using In = Element<decltype(in)>;
        using Out = Element<decltype(to)>;
        const auto in_bytes = static_cast<int64_t>(kPack * sizeof(In)),
                   out_bytes = static_cast<int64_t>(kPack * sizeof(Out));
        const bool packs =
            n % kPack == 0 && is_aligned(g, in_bytes) && is_aligned(u, in_bytes) && is_aligned(y, out_bytes);
        const auto kernel = packs ? silu_mul_kernel<kPack, In, Out> : silu_mul_kernel<1, In, Out>;
        const int64_t threads_of_row = ceil_div(n, packs ? kPack : 1);
        const auto threads = std::min<int64_t>(kThreads, ceil_div(threads_of_row, kWarp) * kWarp);
        const dim3 grid(static_cast<unsigned>(ceil_div(threads_of_row, threads)), static_cast<unsigned>(end - begin));
        kernel<<<grid, static_cast<unsigned>(threads), 0, cuda_stream(context)>>>(
            g.as<In>(), g.row_bytes, u.as<In>(), u.row_bytes, y.as<Out>(), y.row_bytes, n);
      });
    });
    check_launch("silu_mul");
  }
}

}  // namespace msa
