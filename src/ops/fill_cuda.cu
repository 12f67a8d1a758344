#include "ops/cuda_ops.h"
#include "ops/fill_hash.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

template <class T>
__global__ void fill_uniform_kernel(T* out, int64_t n, float limit, uint32_t seed, int64_t first) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    store(out + i, limit * uniform_of(static_cast<uint64_t>(first + i), seed));
  }
}

}  // namespace

void fill_uniform_cuda(Context& context, const Tensor& t, float limit, uint32_t seed, int64_t first) {
  if (t.elements() == 0) return;
  with_type(t.dtype, [&](auto* type) {
    using T = Element<decltype(type)>;
    fill_uniform_kernel<<<1024, 256, 0, cuda_stream(context)>>>(t.as<T>(), t.elements(), limit, seed, first);
  });
  check_launch("fill_uniform");
}

}  // namespace msa
