#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256, kBlocks = 128;

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

/// The block's best, in thread 0.
__device__ Best block_best(Best best) {
  __shared__ Best bests[kWarp];
  best = warp_best(best);
  if (threadIdx.x % kWarp == 0) bests[threadIdx.x / kWarp] = best;
  __syncthreads();
  const Best none{-INFINITY, INT64_MAX};
  return threadIdx.x < kWarp ? warp_best(threadIdx.x < blockDim.x / kWarp ? bests[threadIdx.x] : none) : best;
}

/// x [n] → bests [blocks].
__global__ void best_of_blocks_kernel(const float* x, int64_t n, Best* bests) {
  Best best{-INFINITY, INT64_MAX};
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += step) {
    best = better(best, {x[i], i});
  }
  best = block_best(best);
  if (threadIdx.x == 0) bests[blockIdx.x] = best;
}

/// bests [kBlocks], one a thread.
__global__ void argmax_kernel(const Best* bests, int64_t n, int32_t* out) {
  const Best best = block_best(bests[threadIdx.x]);
  if (threadIdx.x == 0) *out = best.index < n ? static_cast<int32_t>(best.index) : 0;
}

}  // namespace

void argmax_cuda(Context& context, const Tensor& x, const Tensor& out) {
  const Tensor bests = context.scratch[0].tensor(DType::kI8, {kBlocks * int64_t{sizeof(Best)}}, context.device);
  const cudaStream_t stream = cuda_stream(context);
  best_of_blocks_kernel<<<kBlocks, kThreads, 0, stream>>>(x.as<float>(), x.elements(), bests.as<Best>());
  argmax_kernel<<<1, kBlocks, 0, stream>>>(bests.as<Best>(), x.elements(), out.as<int32_t>());
  check_launch("argmax");
}

}  // namespace msa
