#include <cmath>

#include "ops/cuda_ops.h"
#include "ops/fold_heads.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 128;
constexpr int kMostElements = 4;  // of a head, in one thread
constexpr float kNormFloor = 1e-12f;

/// q [T, G, group, d], out [T, G, d]; grid.x: token, grid.y: key head. `scale` is applied to every head, `normalise`
/// divides by its norm as well.
__global__ void fold_heads_kernel(const float* q, float* out, int group, int d, int normalise, float scale) {
  __shared__ float sums[kWarp];
  const int64_t index = static_cast<int64_t>(blockIdx.x) * gridDim.y + blockIdx.y;
  float folded[kMostElements] = {};
  for (int h = 0; h < group; ++h) {
    const float* head = q + (index * group + h) * d;
    float values[kMostElements], squares = 0;
#pragma unroll
    for (int j = 0; j < kMostElements; ++j) {
      const int i = static_cast<int>(threadIdx.x) + j * kThreads;
      values[j] = i < d ? head[i] : 0;
      squares += values[j] * values[j];
    }
    __syncthreads();  // the sums of the head before have been read
    const float norm = normalise ? fmaxf(sqrtf(block_sum(squares, sums)), kNormFloor) : 1.0f;
#pragma unroll
    for (int j = 0; j < kMostElements; ++j) folded[j] += values[j] * (scale / norm);
  }
#pragma unroll
  for (int j = 0; j < kMostElements; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * kThreads;
    if (i < d) out[index * d + i] = folded[j];
  }
}

}  // namespace

void fold_heads_cuda(Context& context, const Tensor& q, const FoldHeads& how, const Tensor& out) {
  if (q.rows() == 0) return;
  const int d = static_cast<int>(q.row_elements()) / how.n_heads;
  MSA_CHECK(d <= kThreads * kMostElements);
  const float heads = static_cast<float>(how.n_heads);
  const float scale = how.weight * (how.normalise ? 1.0f / heads : 1.0f / (heads * std::sqrt(static_cast<float>(d))));
  const dim3 grid(static_cast<unsigned>(q.rows()), static_cast<unsigned>(how.kv_heads));
  fold_heads_kernel<<<grid, kThreads, 0, cuda_stream(context)>>>(q.as<float>(), out.as<float>(),
                                                                 how.n_heads / how.kv_heads, d, how.normalise, scale);
  check_launch("fold_heads");
}

}  // namespace msa
