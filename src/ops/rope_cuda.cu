#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256;

/// One warp a head. x [T, heads, 2 · half] in place, cos_sin [positions, 2, half], positions [T].
template <class T>
__global__ void rope_kernel(T* x, int64_t row_bytes, const float* cos_sin, const int32_t* positions, int64_t rows,
                            int heads, int half) {
  const int64_t head = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (head >= rows * heads) return;
  const int64_t row = head / heads;
  T* values = row_of(x, row, row_bytes) + head % heads * 2 * half;
  const float* cos = cos_sin + static_cast<int64_t>(positions[row]) * 2 * half;
  const float* sin = cos + half;
  for (int i = threadIdx.x % kWarp; i < half; i += kWarp) {
    const float a = load(values + i), b = load(values + half + i);
    store(values + i, a * cos[i] - b * sin[i]);
    store(values + half + i, b * cos[i] + a * sin[i]);
  }
}

}  // namespace

void rope_cuda(Context& context, const RopeTable& table, const Tensor& positions, const Tensor& x) {
  if (x.elements() == 0) return;
  const int64_t heads = x.rows() * x.dim(1);
  with_type(x.dtype, [&](auto* type) {
    using T = Element<decltype(type)>;
    const auto blocks = static_cast<unsigned>(ceil_div(heads, kThreads / kWarp));
    rope_kernel<<<blocks, kThreads, 0, cuda_stream(context)>>>(x.as<T>(), x.row_bytes, table.device.as<float>(),
                                                               positions.as<int32_t>(), x.rows(),
                                                               static_cast<int>(x.dim(1)), table.head_dim / 2);
  });
  check_launch("rope");
}

}  // namespace msa
