// One query row over many keys: blocks share out the keys of a key/value head, the last of them joins the parts. Until
// the projections are there, a block fetches its first keys and values.
#include <cmath>

#include "ops/attention_cuda.h"
#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kKeyTile = 64;
constexpr int kBytesPerCopy = 16;
constexpr int kMostHeads = DecodeCache::kMostHeadsPerGroup;
constexpr int kMostHeadDim = DecodeCache::kMostHeadDim;
constexpr int kMostPairs = kMostHeads * kMostHeadDim / 2 / kThreads;  // pairs of outputs of a thread

struct Parameters {
  const __nv_bfloat16* q;  // [H, d]
  const __nv_bfloat16* k;  // [G, d]
  const __nv_bfloat16* v;  // [G, d]
  const float* q_norm;     // [d] or null
  const float* k_norm;     // [d] or null
  const float* cos_sin;    // [positions, 2, d / 2]
  const int* position;     // [1]
  __nv_bfloat16* out;      // [H, d]
  __nv_bfloat16* cache_k;  // [capacity, G, d]
  __nv_bfloat16* cache_v;  // [capacity, G, d]
  const int* length;       // [1]
  unsigned* counters;      // [G]
  float* partials;         // [H, splits, d + 2]: output, maximum, sum
  int heads_per_group, groups, d;
  float eps, scale;  // scale: d^-1/2 · log2 e
};

/// Rows of a tile of keys or values lie 16 bytes further apart than they are long: other banks.
struct Memory {
  __nv_bfloat16* k;  // [64, stride]
  __nv_bfloat16* v;  // [64, stride]
  float* queries;    // [heads, d], scaled
  int stride;

  __device__ Memory(unsigned char* memory, const Parameters& p) : stride(p.d + kBytesPerCopy / 2) {
    k = reinterpret_cast<__nv_bfloat16*>(memory);
    v = k + kKeyTile * stride;
    queries = reinterpret_cast<float*>(v + kKeyTile * stride);
  }
  static size_t bytes(const Parameters& p) {
    return static_cast<size_t>(2 * kKeyTile) * static_cast<size_t>(p.d + kBytesPerCopy / 2) * sizeof(__nv_bfloat16) +
           static_cast<size_t>(p.heads_per_group * p.d) * sizeof(float);
  }
};

struct Shared {
  float weights[kMostHeads][kKeyTile];
  const __nv_bfloat16* k[kKeyTile];
  const __nv_bfloat16* v[kKeyTile];
  float maximum[kMostHeads], sum[kMostHeads], factor[kMostHeads];
  int is_last;
};

/// Starts copying rows first … of this group's keys and values, `n` of them.
__device__ void copy_tile(const Parameters& p, const DeviceSpans& prefix, int first, int n, int group, Shared& s,
                          const Memory& m) {
  const int i = static_cast<int>(threadIdx.x), key = first + i;
  if (i < n) {
    if (key < prefix.keys) {
      int span = 0;
      while (key >= prefix.list[span].first + prefix.list[span].rows) ++span;
      const DeviceSpan& from = prefix.list[span];
      const int row = key - from.first;
      s.k[i] = row_of(static_cast<const __nv_bfloat16*>(from.k), row, from.k_row_bytes) + group * p.d;
      s.v[i] = row_of(static_cast<const __nv_bfloat16*>(from.v), row, from.v_row_bytes) + group * p.d;
    } else {
      const int64_t at = (static_cast<int64_t>(key - prefix.keys) * p.groups + group) * p.d;
      s.k[i] = p.cache_k + at;
      s.v[i] = p.cache_v + at;
    }
  }
  __syncthreads();
  const int pieces = p.d / 8;
  for (int e = static_cast<int>(threadIdx.x); e < n * pieces; e += kThreads) {
    const int row = e / pieces, column = e % pieces * 8;
    copy_to_shared(m.k + row * m.stride + column, s.k[row] + column);
    copy_to_shared(m.v + row * m.stride + column, s.v[row] + column);
  }
}

/// One head [d], normed where there is a norm and rotated, by one warp; put(i, value) gets the elements.
template <class Put>
__device__ void rotate(const Parameters& p, int position, const __nv_bfloat16* x, const float* norm, const Put& put) {
  constexpr int kMost = kMostHeadDim / 2 / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, half = p.d / 2;
  const float* cos = p.cos_sin + static_cast<int64_t>(position) * p.d;
  const float* sin = cos + half;
  float a[kMost], b[kMost], squares = 0;
#pragma unroll
  for (int j = 0; j < kMost; ++j) {
    const int i = lane + j * kWarp;
    a[j] = i < half ? load(x + i) : 0;
    b[j] = i < half ? load(x + half + i) : 0;
    squares += a[j] * a[j] + b[j] * b[j];
  }
  const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(p.d) + p.eps);
#pragma unroll
  for (int j = 0; j < kMost; ++j) {
    const int i = lane + j * kWarp;
    if (i >= half) break;
    const float u = norm == nullptr ? a[j] : a[j] * scale * norm[i];
    const float v = norm == nullptr ? b[j] : b[j] * scale * norm[half + i];
    put(i, __float2bfloat16_rn(u * cos[i] - v * sin[i]));
    put(half + i, __float2bfloat16_rn(v * cos[i] + u * sin[i]));
  }
}

/// Where the token comes: its row of the cache, its position.
struct Place {
  int length, position;
};

/// The token's own queries; with `row` >= 0 also its key and value, into that row of the tile and into the cache.
__device__ void add_token(const Parameters& p, int group, int row, const Place& place, const Memory& m) {
  for (int head = static_cast<int>(threadIdx.x) / kWarp; head < p.heads_per_group; head += kWarps) {
    const __nv_bfloat16* q = p.q + (group * p.heads_per_group + head) * p.d;
    rotate(p, place.position, q, p.q_norm,
           [&](int i, __nv_bfloat16 x) { m.queries[head * p.d + i] = load(&x) * p.scale; });
  }
  if (row < 0) return;
  const int64_t at = (static_cast<int64_t>(place.length) * p.groups + group) * p.d;
  if (threadIdx.x / kWarp == kWarps - 1) {
    rotate(p, place.position, p.k + group * p.d, p.k_norm, [&](int i, __nv_bfloat16 x) {
      m.k[row * m.stride + i] = x;
      p.cache_k[at + i] = x;
    });
  }
  for (int i = static_cast<int>(threadIdx.x); i < p.d; i += kThreads) {
    const __nv_bfloat16 x = p.v[group * p.d + i];
    m.v[row * m.stride + i] = x;
    p.cache_v[at + i] = x;
  }
}

/// weights[head][key] = the scaled score; -inf behind the last key.
__device__ void score(const Parameters& p, int n, Shared& s, const Memory& m) {
  using Eight = Pack<__nv_bfloat16, 8>;
  using Four = Pack<float, 4>;
  for (int i = static_cast<int>(threadIdx.x); i < p.heads_per_group * kKeyTile; i += kThreads) {
    const int head = i / kKeyTile, key = i % kKeyTile;
    float sums[2] = {};
    if (key < n) {
      const float* q = m.queries + head * p.d;
#pragma unroll 4
      for (int e = 0; e < p.d; e += 8) {
        const Eight k = *reinterpret_cast<const Eight*>(m.k + key * m.stride + e);
        const Four low = *reinterpret_cast<const Four*>(q + e), high = *reinterpret_cast<const Four*>(q + e + 4);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          sums[0] = fmaf(low.values[j], load(&k.values[j]), sums[0]);
          sums[1] = fmaf(high.values[j], load(&k.values[4 + j]), sums[1]);
        }
      }
    }
    s.weights[head][key] = key < n ? sums[0] + sums[1] : -INFINITY;
  }
}

/// One warp a head: scores become weights, the running maximum and sum move on.
__device__ void soften(const Parameters& p, Shared& s) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int head = static_cast<int>(threadIdx.x) / kWarp; head < p.heads_per_group; head += kWarps) {
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

/// Two neighbouring outputs a thread and turn.
__device__ void gather_values(const Parameters& p, int n, const Shared& s, const Memory& m,
                              float2 (&output)[kMostPairs]) {
  const int pairs = p.d / 2;
#pragma unroll
  for (int j = 0; j < kMostPairs; ++j) {
    const int e = static_cast<int>(threadIdx.x) + j * kThreads;
    if (e >= p.heads_per_group * pairs) break;
    const int head = e / pairs;
    const __nv_bfloat16* v = m.v + e % pairs * 2;
    float2 sum = {output[j].x * s.factor[head], output[j].y * s.factor[head]};
#pragma unroll 8
    for (int key = 0; key < n; ++key) {
      const float2 value = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(v + key * m.stride));
      const float weight = s.weights[head][key];
      sum.x = fmaf(weight, value.x, sum.x);
      sum.y = fmaf(weight, value.y, sum.y);
    }
    output[j] = sum;
  }
}

__device__ float* partial_of(const Parameters& p, int head, int split) {
  return p.partials + (static_cast<int64_t>(head) * DecodeCache::kSplits + split) * (p.d + 2);
}

__device__ void store_output(const Parameters& p, int group, const Shared& s, const float2 (&output)[kMostPairs]) {
  const int pairs = p.d / 2;
#pragma unroll
  for (int j = 0; j < kMostPairs; ++j) {
    const int e = static_cast<int>(threadIdx.x) + j * kThreads;
    if (e >= p.heads_per_group * pairs) break;
    const float sum = s.sum[e / pairs];
    __nv_bfloat16* to = p.out + group * p.heads_per_group * p.d + 2 * e;
    store(to, output[j].x / sum);
    store(to + 1, output[j].y / sum);
  }
}

__device__ void store_partial(const Parameters& p, int group, int split, const Shared& s,
                              const float2 (&output)[kMostPairs]) {
  const int pairs = p.d / 2;
#pragma unroll
  for (int j = 0; j < kMostPairs; ++j) {
    const int e = static_cast<int>(threadIdx.x) + j * kThreads;
    if (e >= p.heads_per_group * pairs) break;
    const int head = e / pairs;
    float* to = partial_of(p, group * p.heads_per_group + head, split);
    to[e % pairs * 2] = output[j].x;
    to[e % pairs * 2 + 1] = output[j].y;
    if (e % pairs == 0) {
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
#pragma unroll 4
    for (int n = 0; n < splits; ++n) top = fmaxf(top, __ldcg(partial_of(p, head, n) + p.d));
#pragma unroll 4
    for (int n = 0; n < splits; ++n) {
      const float* part = partial_of(p, head, n);
      const float factor = exp2f(__ldcg(part + p.d) - top);
      sum += factor * __ldcg(part + p.d + 1);
      output += factor * __ldcg(part + i);
    }
    store(p.out + head * p.d + i, output / sum);
  }
}

/// Whether this block is the last of its group's; then all the others' parts can be read.
__device__ bool is_last(const Parameters& p, int group, int splits, Shared& s) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const auto last = static_cast<unsigned>(splits - 1);
    s.is_last = atomicInc(p.counters + group, last) == last;  // back to 0 with the last one
  }
  __syncthreads();
  __threadfence();
  return s.is_last != 0;
}

/// grid.x: split, grid.y: group.
__global__ void __launch_bounds__(kThreads)
    decode_attention_kernel(const __grid_constant__ Parameters p, const __grid_constant__ DeviceSpans prefix) {
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ Shared s;
  let_next_kernel_start();
  const Memory m(memory, p);
  const int split = static_cast<int>(blockIdx.x), group = static_cast<int>(blockIdx.y);
  const Place place{*p.length, *p.position};
  const int keys = prefix.keys + place.length + 1;  // the last one is the token's own
  const int tiles = (keys + kKeyTile - 1) / kKeyTile, splits = min(static_cast<int>(gridDim.x), tiles);
  if (split >= splits) return;
  const auto old_keys = [&](int tile) { return min(kKeyTile, keys - 1 - tile * kKeyTile); };
  copy_tile(p, prefix, split * kKeyTile, old_keys(split), group, s, m);
  if (threadIdx.x < kMostHeads) {
    s.maximum[threadIdx.x] = -INFINITY;
    s.sum[threadIdx.x] = 0;
  }
  wait_for_previous_kernel();
  const int own_row = (tiles - 1) % splits == split ? keys - 1 - (tiles - 1) * kKeyTile : -1;
  float2 output[kMostPairs] = {};
  for (int tile = split; tile < tiles; tile += splits) {
    if (tile != split) {
      __syncthreads();  // the tile before has been read
      copy_tile(p, prefix, tile * kKeyTile, old_keys(tile), group, s, m);
    }
    const bool owns = tile == tiles - 1;
    if (tile == split || owns) add_token(p, group, owns ? own_row : -1, place, m);
    wait_for_copies_to_shared();
    __syncthreads();
    const int n = min(kKeyTile, keys - tile * kKeyTile);
    score(p, n, s, m);
    __syncthreads();
    soften(p, s);
    __syncthreads();
    gather_values(p, n, s, m, output);
  }
  if (splits == 1) return store_output(p, group, s, output);
  store_partial(p, group, split, s, output);
  if (is_last(p, group, splits, s)) join_partials(p, group, splits);
}

}  // namespace

void decode_attention_cuda(Context& context, const DecodeInput& in, std::span<const KeyValueSpan> prefix,
                           const DecodeCache& cache, const Tensor& out) {
  DeviceSpans spans{};
  for (const KeyValueSpan& span : prefix) append_span(spans, span);
  using T = __nv_bfloat16;
  Parameters p{};
  p.q = in.q.as<T>(), p.k = in.k.as<T>(), p.v = in.v.as<T>();
  p.q_norm = in.how.q_norm.as<float>(), p.k_norm = in.how.k_norm.as<float>();
  p.cos_sin = in.how.table->device.as<float>();
  p.position = in.position.as<int>();
  p.out = out.as<T>();
  p.cache_k = cache.k.as<T>(), p.cache_v = cache.v.as<T>();
  p.length = cache.length.as<int>();
  p.counters = cache.counters.as<unsigned>();
  p.partials = cache.partials.as<float>();
  p.heads_per_group = static_cast<int>(in.q.dim(1) / cache.k.dim(1));
  p.groups = static_cast<int>(cache.k.dim(1));
  p.d = static_cast<int>(in.q.dim(2));
  p.eps = in.how.eps;
  p.scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(p.d)));
  const size_t shared = Memory::bytes(p);
  cuda_check(cudaFuncSetAttribute(decode_attention_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared)),
             "decode_attention");
  launch_overlapping(context, decode_attention_kernel, dim3(DecodeCache::kSplits, static_cast<unsigned>(p.groups)),
                     kThreads, shared, p, spans);
}

}  // namespace msa
