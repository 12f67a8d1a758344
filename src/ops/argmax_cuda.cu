#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 1024;

struct Best {
  float value;
  int64_t index;
};

__device__ Best better(const Best& a, const Best& b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

__device__ Best warp_best(Best best) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    best = better(best, {__shfl_xor_sync(kAllLanes, best.value, step), __shfl_xor_sync(kAllLanes, best.index, step)});
  }
  return best;
}

__global__ void argmax_kernel(const float* x, int64_t n, int32_t* out) {
  __shared__ Best bests[kWarp];
  Best best{-INFINITY, n};
  for (int64_t i = threadIdx.x; i < n; i += kThreads) best = better(best, {x[i], i});
  best = warp_best(best);
  if (threadIdx.x % kWarp == 0) bests[threadIdx.x / kWarp] = best;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  best = warp_best(bests[threadIdx.x]);
  if (threadIdx.x == 0) *out = best.index < n ? static_cast<int32_t>(best.index) : 0;
}

}  // namespace

void argmax_cuda(Context& context, const Tensor& x, const Tensor& out) {
  argmax_kernel<<<1, kThreads, 0, cuda_stream(context)>>>(x.as<float>(), x.elements(), out.as<int32_t>());
  check_launch("argmax");
}

}  // namespace msa
