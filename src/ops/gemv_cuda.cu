#include <algorithm>

#include "ops/gemv_cuda.h"
#include "ops/kernels.cuh"

namespace msa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kElements = 8;            // of one 16-byte load
constexpr int kBlocksPerProcessor = 8;  // all 2,048 threads of a streaming multiprocessor
constexpr size_t kMostSharedBytes = 96 << 10;

struct Parameters {
  const __nv_bfloat16* weight;  // [out, in]
  const void* x;                // BF16 [T, in], or F32 to be normed
  const float* norm;            // [in] or null
  __nv_bfloat16* h;             // [T, in] or null
  void* y;                      // [T, out]
  int64_t x_row_bytes, h_row_bytes, y_row_bytes;
  float eps;
  int in, out;  // with kGated, outputs after the gate
  int accumulate, y_bf16;
};

/// 16 bytes that nobody reads again: past the L1 cache.
__device__ inline uint4 load_once(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

__device__ inline float low_half(uint32_t x) { return __uint_as_float(x << 16); }
__device__ inline float high_half(uint32_t x) { return __uint_as_float(x & 0xffff0000u); }

__device__ inline float dot_2(uint32_t a, uint32_t b, float sum) {
  return fmaf(high_half(a), high_half(b), fmaf(low_half(a), low_half(b), sum));
}
__device__ inline float dot_8(const uint4& a, const uint4& b, float sum) {
  return dot_2(a.w, b.w, dot_2(a.z, b.z, dot_2(a.y, b.y, dot_2(a.x, b.x, sum))));
}

__device__ inline float silu(float x) {
  const float e = expf(-fabsf(x));
  return x * ((x >= 0 ? 1.0f : e) / (1.0f + e));
}

/// x [kRows, in] as BF16 into shared memory, normed on the way where there is a norm.
template <int kRows>
__device__ void load_x(const Parameters& p, __nv_bfloat16* shared) {
  __shared__ float sums[kWarp];
  for (int t = 0; t < kRows; ++t) {
    __nv_bfloat16* to = shared + t * p.in;
    if (p.norm == nullptr) {
      const uint4* from = row_of(static_cast<const uint4*>(p.x), t, p.x_row_bytes);
      for (int i = threadIdx.x; i < p.in / kElements; i += kThreads) reinterpret_cast<uint4*>(to)[i] = from[i];
      continue;
    }
    const float* from = row_of(static_cast<const float*>(p.x), t, p.x_row_bytes);
    float squares = 0;
    for (int i = threadIdx.x; i < p.in; i += kThreads) squares += from[i] * from[i];
    __syncthreads();  // sums of the row before have been read
    const float scale = 1.0f / sqrtf(block_sum(squares, sums) / static_cast<float>(p.in) + p.eps);
    for (int i = threadIdx.x; i < p.in; i += kThreads) {
      const __nv_bfloat16 value = __float2bfloat16_rn(from[i] * scale * p.norm[i]);
      to[i] = value;
      if (p.h != nullptr && blockIdx.x == 0) row_of(p.h, t, p.h_row_bytes)[i] = value;
    }
  }
  __syncthreads();
}

template <int kRows>
__device__ void multiply_row(const Parameters& p, int o, const __nv_bfloat16* x, float (&sums)[kRows]) {
  const auto* weight = reinterpret_cast<const uint4*>(p.weight + static_cast<int64_t>(o) * p.in);
  const int pieces = p.in / kElements;
  for (int t = 0; t < kRows; ++t) sums[t] = 0;
#pragma unroll 5
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < pieces; i += kWarp) {
    const uint4 w = load_once(weight + i);
#pragma unroll
    for (int t = 0; t < kRows; ++t) sums[t] = dot_8(w, reinterpret_cast<const uint4*>(x + t * p.in)[i], sums[t]);
  }
#pragma unroll
  for (int t = 0; t < kRows; ++t) sums[t] = warp_sum(sums[t]);
}

__device__ inline void write(const Parameters& p, int t, int o, float value) {
  if (p.y_bf16) {
    store(row_of(static_cast<__nv_bfloat16*>(p.y), t, p.y_row_bytes) + o, value);
  } else {
    float* to = row_of(static_cast<float*>(p.y), t, p.y_row_bytes) + o;
    *to = p.accumulate ? *to + value : value;
  }
}

/// One warp an output (kGated: an output of the gate and its partner), as many in turn as the grid leaves to it.
template <int kRows, bool kGated>
__global__ void __launch_bounds__(kThreads) gemv_kernel(const Parameters p) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto* x = reinterpret_cast<__nv_bfloat16*>(memory);
  load_x<kRows>(p, x);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first = static_cast<int>((blockIdx.x * kThreads + threadIdx.x) / kWarp);
  for (int o = first; o < p.out; o += static_cast<int>(gridDim.x) * kWarps) {
    float sums[kRows];
    multiply_row<kRows>(p, o, x, sums);
    if constexpr (kGated) {
      float ups[kRows];
      multiply_row<kRows>(p, o + p.out, x, ups);
#pragma unroll
      for (int t = 0; t < kRows; ++t) sums[t] = silu(sums[t]) * ups[t];
    }
#pragma unroll
    for (int t = 0; t < kRows; ++t) {
      if (lane == t) write(p, t, o, sums[t]);
    }
  }
}

template <int kRows>
void launch(Context& context, const Gemv& g, const Parameters& p) {
  const auto kernel = g.gated ? gemv_kernel<kRows, true> : gemv_kernel<kRows, false>;
  const size_t shared = static_cast<size_t>(kRows) * static_cast<size_t>(p.in) * sizeof(__nv_bfloat16);
  const cudaStream_t stream = cuda_stream(context);
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
             "gemv");
  // Equal shares: as few rounds as the GPU needs, then as few blocks as these rounds need.
  const int64_t needed = ceil_div(p.out, kWarps), most = int64_t{context.cuda->processors} * kBlocksPerProcessor;
  const int64_t blocks = ceil_div(needed, ceil_div(needed, most));
  kernel<<<static_cast<unsigned>(blocks), kThreads, shared, stream>>>(p);
  check_launch("gemv");
}

}  // namespace

bool gemv_fits(const Gemv& g) {
  const int64_t in = g.weight.dim(1);
  return g.weight.dtype == DType::kBF16 && g.x.rows() >= 1 && g.x.rows() <= Gemv::kMostRows && in % kElements == 0 &&
         is_aligned(g.weight, 16) && is_aligned(g.x, 16) &&
         static_cast<size_t>(g.x.rows() * in) * sizeof(__nv_bfloat16) <= kMostSharedBytes &&
         g.x.dtype == (g.norm.empty() ? DType::kBF16 : DType::kF32);
}

void gemv(Context& context, const Gemv& g) {
  MSA_CHECK(gemv_fits(g));
  Parameters p{};
  p.weight = g.weight.as<__nv_bfloat16>();
  p.x = g.x.data;
  p.norm = g.norm.as<float>();
  p.h = g.h.as<__nv_bfloat16>();
  p.y = g.y.data;
  p.x_row_bytes = g.x.row_bytes, p.h_row_bytes = g.h.row_bytes, p.y_row_bytes = g.y.row_bytes;
  p.eps = g.eps;
  p.in = static_cast<int>(g.weight.dim(1));
  p.out = static_cast<int>(g.gated ? g.weight.rows() / 2 : g.weight.rows());
  p.accumulate = g.accumulate;
  p.y_bf16 = g.y.dtype == DType::kBF16;
  switch (g.x.rows()) {
    case 1: return launch<1>(context, g, p);
    case 2: return launch<2>(context, g, p);
    case 3: return launch<3>(context, g, p);
    default: return launch<4>(context, g, p);
  }
}

}  // namespace msa::cuda
