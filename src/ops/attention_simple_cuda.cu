// Attention for every shape and type, in float32: what the fast kernels are compared with, and what float32 runs on.
#include <cmath>

#include "ops/attention_cuda.h"
#include "ops/kernels.cuh"

namespace msa::cuda {
namespace {

constexpr int kThreads = 128;  // also the keys of one step

__device__ float load_any(const void* p, int64_t i, int is_bf16) {
  return is_bf16 ? load(static_cast<const __nv_bfloat16*>(p) + i) : static_cast<const float*>(p)[i];
}

struct Shared {
  float query[kMostHeadDim];
  float weights[kThreads];
  const void* values[kThreads];  // row of each key's value
  int bf16[kThreads];
  float sums[2][kWarp];
};

__device__ int find_span(const DeviceSpans& spans, int key) {
  int s = 0;
  while (key >= spans.list[s].first + spans.list[s].rows) ++s;
  return s;
}

__device__ float block_max(float x, float* shared) {
  x = warp_max(x);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  float top = shared[0];
  for (int w = 1; w < kThreads / kWarp; ++w) top = fmaxf(top, shared[w]);
  return top;
}

/// Scores the thread's own key and leaves its value's row in shared memory.
__device__ float score(const AttentionParameters& p, const DeviceSpans& spans, int key, int group, Shared& s) {
  const DeviceSpan& span = spans.list[find_span(spans, key)];
  const int row = key - span.first;
  const void* k = static_cast<const char*>(span.k) + row * span.k_row_bytes;
  s.values[threadIdx.x] = static_cast<const char*>(span.v) + row * span.v_row_bytes;
  s.bf16[threadIdx.x] = span.bf16;
  float sum = 0;
  for (int i = 0; i < p.d; ++i) sum += s.query[i] * load_any(k, group * p.d + i, span.bf16);
  return sum * p.scale;
}

/// One query row and head over keys [begin, end).
__device__ void attend_row(const AttentionParameters& p, const DeviceSpans& spans, int row, int head, int begin,
                           int end, Shared& s) {
  const int group = head / p.heads_per_group;
  const void* q = static_cast<const char*>(p.q) + row * p.q_row_bytes;
  void* out = static_cast<char*>(p.out) + row * p.out_row_bytes;
  __syncthreads();  // the row before has been read
  for (int i = threadIdx.x; i < p.d; i += kThreads) s.query[i] = load_any(q, head * p.d + i, p.q_bf16);
  float maximum = -INFINITY, sum = 0;
  float output[kMostHeadDim / kThreads] = {};
  for (int first = begin; first < end; first += kThreads) {
    __syncthreads();  // query written; weights of the step before read
    const int n = min(kThreads, end - first);
    const bool mine = static_cast<int>(threadIdx.x) < n;
    const float x = mine ? score(p, spans, first + static_cast<int>(threadIdx.x), group, s) : -INFINITY;
    const float top = fmaxf(maximum, block_max(x, s.sums[0]));
    const float weight = mine ? expf(x - top) : 0.0f;
    const float factor = expf(maximum - top);
    s.weights[threadIdx.x] = weight;
    sum = sum * factor + block_sum(weight, s.sums[1]);
    maximum = top;
    __syncthreads();
    for (int c = 0, i = threadIdx.x; i < p.d; ++c, i += kThreads) {
      output[c] *= factor;
      for (int j = 0; j < n; ++j) output[c] += s.weights[j] * load_any(s.values[j], group * p.d + i, s.bf16[j]);
    }
  }
  for (int c = 0, i = threadIdx.x; i < p.d; ++c, i += kThreads) {
    const float y = output[c] / sum;
    if (p.out_bf16)
      store(static_cast<__nv_bfloat16*>(out) + head * p.d + i, y);
    else
      static_cast<float*>(out)[head * p.d + i] = y;
  }
}

/// grid.x: tile (packed) or query row; grid.y: head.
__global__ void attend_simple_kernel(const AttentionParameters p, const __grid_constant__ DeviceSpans spans) {
  __shared__ Shared s;
  const int head = static_cast<int>(blockIdx.y), x = static_cast<int>(blockIdx.x);
  if (p.tiles == nullptr) return attend_row(p, spans, x, head, 0, spans.keys - p.rows + x + 1, s);
  const int4 tile = p.tiles[x];  // first row, end, first row of the sequence
  for (int row = tile.x; row < tile.y; ++row) attend_row(p, spans, row, head, tile.z, row + 1, s);
}

}  // namespace

void attend_simple(Context& context, const AttentionParameters& p, const DeviceSpans& spans, int64_t tiles) {
  const dim3 grid(static_cast<unsigned>(p.tiles == nullptr ? p.rows : tiles), static_cast<unsigned>(p.heads));
  attend_simple_kernel<<<grid, kThreads, 0, cuda_stream(context)>>>(p, spans);
  check_launch("attend_simple");
}

}  // namespace msa::cuda
