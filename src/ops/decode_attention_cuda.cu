// One query row over many keys: blocks share out the keys of a key/value head, the last of them joins the parts.
#include <cmath>

#include "ops/attention_cuda.h"
#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kKeyTile = 64;
constexpr int kMostHeads = DecodeCache::kMostHeadsPerGroup;
constexpr int kMostOutputs = kMostHeads * DecodeCache::kMostHeadDim / kThreads;  // of a thread

struct Parameters {
  const __nv_bfloat16* q;  // [H, d]
  __nv_bfloat16* out;      // [H, d]
  DeviceSpan cache;        // k, v [capacity, G, d]
  const int* length;       // [1]
  unsigned* counters;      // [G]
  float* partials;         // [H, splits, d + 2]: output, maximum, sum
  int heads_per_group, d;
  float scale;  // d^-1/2 · log2 e
};

struct Shared {
  float queries[kMostHeads * DecodeCache::kMostHeadDim];  // [heads, d], scaled
  float weights[kMostHeads][kKeyTile];
  const __nv_bfloat16* k[kKeyTile];
  const __nv_bfloat16* v[kKeyTile];
  float maximum[kMostHeads], sum[kMostHeads], factor[kMostHeads];
  int is_last;
};

/// One thread a key: where its row of this group lies.
__device__ void find_rows(const Parameters& p, const DeviceSpans& prefix, int first, int keys, int group, Shared& s) {
  const int i = static_cast<int>(threadIdx.x), key = first + i;
  if (i >= kKeyTile || key >= keys) return;
  const DeviceSpan* span = &p.cache;
  int row = key - prefix.keys;
  if (key < prefix.keys) {
    int n = 0;
    while (key >= prefix.list[n].first + prefix.list[n].rows) ++n;
    span = &prefix.list[n];
    row = key - span->first;
  }
  s.k[i] = row_of(static_cast<const __nv_bfloat16*>(span->k), row, span->k_row_bytes) + group * p.d;
  s.v[i] = row_of(static_cast<const __nv_bfloat16*>(span->v), row, span->v_row_bytes) + group * p.d;
}

/// weights[head][key] = the scaled score; -inf behind the last key.
__device__ void score(const Parameters& p, int n, Shared& s) {
  for (int i = static_cast<int>(threadIdx.x); i < p.heads_per_group * kKeyTile; i += kThreads) {
    const int head = i / kKeyTile, key = i % kKeyTile;
    float sum = -INFINITY;
    if (key < n) {
      sum = 0;
      const float* q = s.queries + head * p.d;
#pragma unroll 4
      for (int e = 0; e < p.d; e += 8) {
        const auto k = *reinterpret_cast<const Pack<__nv_bfloat16, 8>*>(s.k[key] + e);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum = fmaf(q[e + j], load(&k.values[j]), sum);
      }
    }
    s.weights[head][key] = sum;
  }
}

/// One warp a head: scores become weights, the running maximum and sum move on.
__device__ void soften(const Parameters& p, Shared& s) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int head = static_cast<int>(threadIdx.x) / kWarp; head < p.heads_per_group; head += kThreads / kWarp) {
    const float a = s.weights[head][lane], b = s.weights[head][lane + kWarp];
    const float before = s.maximum[head], top = fmaxf(before, warp_max(fmaxf(a, b)));
    const float x = exp2f(a - top), y = exp2f(b - top), sum = warp_sum(x + y), factor = exp2f(before - top);
    s.weights[head][lane] = x;
    s.weights[head][lane + kWarp] = y;
    __syncwarp();
    if (lane == 0) {
      s.maximum[head] = top;
      s.sum[head] = s.sum[head] * factor + sum;
      s.factor[head] = factor;
    }
  }
}

__device__ void gather_values(const Parameters& p, int n, const Shared& s, float (&output)[kMostOutputs]) {
#pragma unroll
  for (int j = 0; j < kMostOutputs; ++j) {
    const int e = static_cast<int>(threadIdx.x) + j * kThreads;
    if (e >= p.heads_per_group * p.d) break;
    const int head = e / p.d, i = e % p.d;
    float sum = output[j] * s.factor[head];
#pragma unroll 8
    for (int key = 0; key < n; ++key) sum = fmaf(s.weights[head][key], load(s.v[key] + i), sum);
    output[j] = sum;
  }
}

__device__ float* partial_of(const Parameters& p, int head, int split) {
  return p.partials + (static_cast<int64_t>(head) * DecodeCache::kSplits + split) * (p.d + 2);
}

__device__ void store_partial(const Parameters& p, int group, int split, const Shared& s,
                              const float (&output)[kMostOutputs]) {
#pragma unroll
  for (int j = 0; j < kMostOutputs; ++j) {
    const int e = static_cast<int>(threadIdx.x) + j * kThreads;
    if (e >= p.heads_per_group * p.d) break;
    const int head = e / p.d;
    float* to = partial_of(p, group * p.heads_per_group + head, split);
    to[e % p.d] = output[j];
    if (e % p.d == 0) {
      to[p.d] = s.maximum[head];
      to[p.d + 1] = s.sum[head];
    }
  }
}

/// Reads past the L1 cache: other blocks wrote.
__device__ void join_partials(const Parameters& p, int group, int splits) {
  for (int e = static_cast<int>(threadIdx.x); e < p.heads_per_group * p.d; e += kThreads) {
    const int head = group * p.heads_per_group + e / p.d, i = e % p.d;
    float top = -INFINITY, sum = 0, output = 0;
    for (int n = 0; n < splits; ++n) top = fmaxf(top, __ldcg(partial_of(p, head, n) + p.d));
    for (int n = 0; n < splits; ++n) {
      const float* part = partial_of(p, head, n);
      const float factor = exp2f(__ldcg(part + p.d) - top);
      sum += factor * __ldcg(part + p.d + 1);
      output += factor * __ldcg(part + i);
    }
    store(p.out + head * p.d + i, output / sum);
  }
}

/// grid.x: split, grid.y: group.
__global__ void __launch_bounds__(kThreads)
    decode_attention_kernel(const __grid_constant__ Parameters p, const __grid_constant__ DeviceSpans prefix) {
  __shared__ Shared s;
  const int split = static_cast<int>(blockIdx.x), group = static_cast<int>(blockIdx.y);
  const int keys = prefix.keys + *p.length + 1;
  const int tiles = (keys + kKeyTile - 1) / kKeyTile, splits = min(static_cast<int>(gridDim.x), tiles);
  if (split >= splits) return;
  const __nv_bfloat16* q = p.q + group * p.heads_per_group * p.d;
  for (int i = threadIdx.x; i < p.heads_per_group * p.d; i += kThreads) s.queries[i] = load(q + i) * p.scale;
  if (threadIdx.x < kMostHeads) {
    s.maximum[threadIdx.x] = -INFINITY;
    s.sum[threadIdx.x] = 0;
  }
  float output[kMostOutputs] = {};
  for (int tile = split; tile < tiles; tile += splits) {
    const int first = tile * kKeyTile, n = min(kKeyTile, keys - first);
    __syncthreads();  // queries written; the tile before has been read
    find_rows(p, prefix, first, keys, group, s);
    __syncthreads();
    score(p, n, s);
    __syncthreads();
    soften(p, s);
    __syncthreads();
    gather_values(p, n, s, output);
  }
  store_partial(p, group, split, s, output);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const auto last = static_cast<unsigned>(splits - 1);
    s.is_last = atomicInc(p.counters + group, last) == last;  // back to 0 with the last one
  }
  __syncthreads();
  if (!s.is_last) return;
  __threadfence();
  join_partials(p, group, splits);
}

__global__ void append_decoded_kernel(const __nv_bfloat16* k, const __nv_bfloat16* v, __nv_bfloat16* cache_k,
                                      __nv_bfloat16* cache_v, const int* length, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const int64_t at = static_cast<int64_t>(*length) * n + i;
  cache_k[at] = k[i];
  cache_v[at] = v[i];
}

}  // namespace

void append_decoded_cuda(Context& context, const Tensor& k, const Tensor& v, const DecodeCache& cache) {
  const int n = static_cast<int>(k.row_elements());
  using T = __nv_bfloat16;
  append_decoded_kernel<<<static_cast<unsigned>(ceil_div(n, kThreads)), kThreads, 0, cuda_stream(context)>>>(
      k.as<T>(), v.as<T>(), cache.k.as<T>(), cache.v.as<T>(), cache.length.as<int>(), n);
  check_launch("append_decoded");
}

void decode_attention_cuda(Context& context, const Tensor& q, std::span<const KeyValueSpan> prefix,
                           const DecodeCache& cache, const Tensor& out) {
  DeviceSpans spans{};
  for (const KeyValueSpan& span : prefix) append_span(spans, span);
  const auto groups = static_cast<unsigned>(cache.k.dim(1));
  Parameters p{};
  p.q = q.as<__nv_bfloat16>();
  p.out = out.as<__nv_bfloat16>();
  p.cache = {cache.k.data, cache.v.data, cache.k.row_bytes, cache.v.row_bytes, 0, 0, 1};
  p.length = cache.length.as<int>();
  p.counters = cache.counters.as<unsigned>();
  p.partials = cache.partials.as<float>();
  p.heads_per_group = static_cast<int>(q.dim(1) / cache.k.dim(1));
  p.d = static_cast<int>(q.dim(2));
  p.scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(p.d)));
  decode_attention_kernel<<<dim3(DecodeCache::kSplits, groups), kThreads, 0, cuda_stream(context)>>>(p, spans);
  check_launch("decode_attention");
}

}  // namespace msa
