#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <string>

#include "core/error.h"
#include "train/fused_kernels.h"

namespace msa::train {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = kThreads / kWarp;

void check(const char* kernel) {
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) return;
  throw Error(std::string("CUDA kernel cannot be started: ") + cudaGetErrorString(status), kernel,
              "check that the GPU is of compute capability 8.0 or 9.0");
}

unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

/// Eight bf16 numbers, moved as 16 bytes.
struct alignas(16) Pack8 {
  __nv_bfloat162 pair[4];
};

__device__ void unpack(const Pack8& p, float (&out)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 f = __bfloat1622float2(p.pair[i]);
    out[2 * i] = f.x;
    out[2 * i + 1] = f.y;
  }
}

__device__ Pack8 pack(const float (&x)[8]) {
  Pack8 p;
#pragma unroll
  for (int i = 0; i < 4; ++i) p.pair[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
  return p;
}

__device__ void load(const Bf16Bits* from, float (&out)[8]) { unpack(*reinterpret_cast<const Pack8*>(from), out); }
__device__ void store(Bf16Bits* to, const float (&x)[8]) { *reinterpret_cast<Pack8*>(to) = pack(x); }

__device__ void load(const float* from, float (&out)[8]) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
  out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

/// Sum over `width` neighbouring lanes, a power of two; every lane gets it.
__device__ float sum_over(float x, int width) {
  for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// One warp a row; a lane takes every 32nd group of eight.
__global__ void rms_norm_kernel(RmsNormForward p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= p.rows) return;
  const int lane = threadIdx.x % kWarp;
  const Bf16Bits* x = p.x + row * p.n;
  float squares = 0;
  for (int64_t i = lane * 8; i < p.n; i += kWarp * 8) {
    float a[8];
    load(x + i, a);
    if (p.y != nullptr) {
      float b[8];
      load(p.y + row * p.n + i, b);
      for (int j = 0; j < 8; ++j) a[j] += b[j];
      const Pack8 rounded = pack(a);  // the norm is that of the stored sum
      *reinterpret_cast<Pack8*>(p.sum + row * p.n + i) = rounded;
      unpack(rounded, a);
    }
    for (int j = 0; j < 8; ++j) squares += a[j] * a[j];
  }
  const float scale = rsqrtf(sum_over(squares, kWarp) / static_cast<float>(p.n) + p.eps);
  if (lane == 0) p.scale[row] = scale;
  const Bf16Bits* summed = p.y != nullptr ? p.sum + row * p.n : x;
  for (int64_t i = lane * 8; i < p.n; i += kWarp * 8) {
    float a[8], w[8];
    load(summed + i, a);
    load(p.weight + i, w);
    for (int j = 0; j < 8; ++j) a[j] *= scale * w[j];
    store(p.out + row * p.n + i, a);
  }
}

__global__ void rms_norm_backward_kernel(RmsNormBackward p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= p.rows) return;
  const int lane = threadIdx.x % kWarp;
  const float scale = p.scale[row];
  float dot = 0;
  for (int64_t i = lane * 8; i < p.n; i += kWarp * 8) {
    float x[8], g[8], w[8];
    load(p.x + row * p.n + i, x);
    load(p.out_grad + row * p.n + i, g);
    load(p.weight + i, w);
    for (int j = 0; j < 8; ++j) dot += x[j] * g[j] * w[j];
  }
  const float along = sum_over(dot, kWarp) * scale * scale * scale / static_cast<float>(p.n);
  for (int64_t i = lane * 8; i < p.n; i += kWarp * 8) {
    float x[8], g[8], w[8];
    load(p.x + row * p.n + i, x);
    load(p.out_grad + row * p.n + i, g);
    load(p.weight + i, w);
    for (int j = 0; j < 8; ++j) g[j] = g[j] * w[j] * scale - x[j] * along;
    if (p.x_grad != nullptr) {
      float other[8];
      load(p.x_grad + row * p.n + i, other);
      for (int j = 0; j < 8; ++j) g[j] += other[j];
    }
    store(p.grad + row * p.n + i, g);
  }
}

/// Where the threads of one head stand: d / 16 lanes, each with eight elements of either half.
struct HeadPlace {
  int64_t row, head;  // head over queries, keys, values
  int lane;           // of the head
  bool inside;
};

__device__ HeadPlace head_place(const SplitHeads& p) {
  const int lanes = p.head_dim / 16;
  const int64_t heads = p.n_heads + 2 * p.n_kv_heads;
  const int64_t item = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / lanes;
  return {item / heads, item % heads, static_cast<int>(threadIdx.x % lanes), item < p.rows * heads};
}

/// The head's own place in q, k or v.
__device__ Bf16Bits* head_target(const SplitHeads& p, const HeadPlace& at) {
  const int64_t d = p.head_dim;
  if (at.head < p.n_heads) return p.q + (at.row * p.n_heads + at.head) * d;
  const int64_t key = at.head - p.n_heads;
  if (key < p.n_kv_heads) return p.k + (at.row * p.n_kv_heads + key) * d;
  return p.v + (at.row * p.n_kv_heads + key - p.n_kv_heads) * d;
}

__global__ void split_heads_kernel(SplitHeads p) {
  const HeadPlace at = head_place(p);
  // Lanes outside take part in the shuffles with row 0's data and store nothing.
  const int64_t row = at.inside ? at.row : 0, head = at.inside ? at.head : 0;
  const int half = p.head_dim / 2, first = at.lane * 8;
  const Bf16Bits* from = p.qkv + (row * (p.n_heads + 2 * p.n_kv_heads) + head) * p.head_dim;
  float a[8], b[8];
  load(from + first, a);
  load(from + half + first, b);
  const bool is_query = head < p.n_heads, is_value = head >= p.n_heads + p.n_kv_heads;
  if (p.q_norm != nullptr) {
    float squares = 0;
    for (int j = 0; j < 8; ++j) squares += a[j] * a[j] + b[j] * b[j];
    const float scale = rsqrtf(sum_over(squares, p.head_dim / 16) / static_cast<float>(p.head_dim) + p.eps);
    const float* weight = is_query ? p.q_norm : p.k_norm;
    for (int j = 0; j < 8 && !is_value; ++j) {
      a[j] = __bfloat162float(__float2bfloat16_rn(a[j] * scale * weight[first + j]));
      b[j] = __bfloat162float(__float2bfloat16_rn(b[j] * scale * weight[half + first + j]));
    }
  }
  if (!at.inside) return;
  if (!is_value) {
    for (int j = 0; j < 8; ++j) {
      const float c = p.cosine[row * half + first + j], s = p.sine[row * half + first + j];
      const float x = a[j], y = b[j];
      a[j] = x * c - y * s;
      b[j] = y * c + x * s;
    }
  }
  Bf16Bits* to = head_target(p, at);
  store(to + first, a);
  store(to + half + first, b);
}

__global__ void split_heads_backward_kernel(SplitHeads p) {
  const HeadPlace at = head_place(p);
  HeadPlace place = at;
  if (!at.inside) place.row = place.head = 0;
  const int half = p.head_dim / 2, first = at.lane * 8;
  const int64_t offset = (place.row * (p.n_heads + 2 * p.n_kv_heads) + place.head) * p.head_dim;
  const Bf16Bits* from = head_target(p, place);
  float a[8], b[8];
  load(from + first, a);
  load(from + half + first, b);
  const bool is_query = place.head < p.n_heads, is_value = place.head >= p.n_heads + p.n_kv_heads;
  if (!is_value) {
    for (int j = 0; j < 8; ++j) {
      const float c = p.cosine[place.row * half + first + j], s = p.sine[place.row * half + first + j];
      const float x = a[j], y = b[j];
      a[j] = x * c + y * s;
      b[j] = y * c - x * s;
    }
  }
  if (p.q_norm != nullptr) {
    const float* weight = is_query ? p.q_norm : p.k_norm;
    float x[8], y[8], squares = 0, dot = 0;
    load(p.qkv + offset + first, x);
    load(p.qkv + offset + half + first, y);
    for (int j = 0; j < 8; ++j) {
      squares += x[j] * x[j] + y[j] * y[j];
      dot += x[j] * a[j] * weight[first + j] + y[j] * b[j] * weight[half + first + j];
    }
    const float n = static_cast<float>(p.head_dim);
    const float scale = rsqrtf(sum_over(squares, p.head_dim / 16) / n + p.eps);
    const float along = sum_over(dot, p.head_dim / 16) * scale * scale * scale / n;
    for (int j = 0; j < 8 && !is_value; ++j) {
      a[j] = a[j] * weight[first + j] * scale - x[j] * along;
      b[j] = b[j] * weight[half + first + j] * scale - y[j] * along;
    }
  }
  if (!at.inside) return;
  store(p.qkv_grad + offset + first, a);
  store(p.qkv_grad + offset + half + first, b);
}

__device__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

__global__ void silu_mul_kernel(SiluMul p) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 8;
  if (i >= p.rows * p.n) return;
  const int64_t row = i / p.n, column = i % p.n;
  float gate[8], up[8];
  load(p.gate_up + row * 2 * p.n + column, gate);
  load(p.gate_up + row * 2 * p.n + p.n + column, up);
  for (int j = 0; j < 8; ++j) up[j] *= gate[j] * sigmoid(gate[j]);
  store(p.out + i, up);
}

__global__ void silu_mul_backward_kernel(SiluMul p) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 8;
  if (i >= p.rows * p.n) return;
  const int64_t row = i / p.n, column = i % p.n;
  float gate[8], up[8], g[8];
  load(p.gate_up + row * 2 * p.n + column, gate);
  load(p.gate_up + row * 2 * p.n + p.n + column, up);
  load(p.out_grad + i, g);
  for (int j = 0; j < 8; ++j) {
    const float s = sigmoid(gate[j]), silu = gate[j] * s;
    const float gate_grad = g[j] * up[j] * (s + silu * (1.0f - s));
    up[j] = g[j] * silu;
    gate[j] = gate_grad;
  }
  store(p.gate_up_grad + row * 2 * p.n + column, gate);
  store(p.gate_up_grad + row * 2 * p.n + p.n + column, up);
}

// One block a run, a thread for every eighth column.
__global__ void run_means_kernel(RunMeans p) {
  const int64_t run = blockIdx.x;
  const int32_t begin = p.starts[run], end = p.starts[run + 1];
  for (int64_t column = threadIdx.x * 8; column < p.n; column += blockDim.x * 8) {
    float sum[8] = {};
    for (int32_t row = begin; row < end; ++row) {
      float x[8];
      load(p.x + row * p.n + column, x);
      for (int j = 0; j < 8; ++j) sum[j] += x[j];
    }
    const float count = static_cast<float>(end - begin);
    for (int j = 0; j < 8; ++j) p.means[run * p.n + column + j] = sum[j] / count;
  }
}

__global__ void run_means_backward_kernel(RunMeans p) {
  const int64_t run = blockIdx.x;
  const int32_t begin = p.starts[run], end = p.starts[run + 1];
  const float count = static_cast<float>(end - begin);
  for (int64_t column = threadIdx.x * 8; column < p.n; column += blockDim.x * 8) {
    float g[8];
    load(p.means + run * p.n + column, g);
    for (int j = 0; j < 8; ++j) g[j] /= count;
    for (int32_t row = begin; row < end; ++row) store(p.x_grad + row * p.n + column, g);
  }
}

unsigned head_blocks(const SplitHeads& p) {
  return blocks_for(p.rows * (p.n_heads + 2 * p.n_kv_heads) * (p.head_dim / 16), kThreads);
}

/// Threads for n columns, eight each: whole warps.
unsigned column_threads(int64_t n) {
  const int64_t threads = (n / 8 + kWarp - 1) / kWarp * kWarp;
  return static_cast<unsigned>(threads < kThreads ? threads : kThreads);
}

}  // namespace

void fused_rms_norm(const RmsNormForward& p) {
  MSA_CHECK(p.n % 8 == 0 && (p.y == nullptr) == (p.sum == nullptr));
  if (p.rows == 0) return;
  rms_norm_kernel<<<blocks_for(p.rows, kWarpsPerBlock), kThreads>>>(p);
  check("rms_norm");
}

void fused_rms_norm_backward(const RmsNormBackward& p) {
  if (p.rows == 0) return;
  rms_norm_backward_kernel<<<blocks_for(p.rows, kWarpsPerBlock), kThreads>>>(p);
  check("rms_norm backward");
}

bool fused_split_heads_takes(int64_t head_dim) {
  const int64_t lanes = head_dim / 16;
  return head_dim % 16 == 0 && lanes <= kWarp && (lanes & (lanes - 1)) == 0;
}

void fused_split_heads(const SplitHeads& p) {
  MSA_CHECK(fused_split_heads_takes(p.head_dim));
  if (p.rows == 0) return;
  split_heads_kernel<<<head_blocks(p), kThreads>>>(p);
  check("split_heads");
}

void fused_split_heads_backward(const SplitHeads& p) {
  if (p.rows == 0) return;
  split_heads_backward_kernel<<<head_blocks(p), kThreads>>>(p);
  check("split_heads backward");
}

void fused_silu_mul(const SiluMul& p) {
  MSA_CHECK(p.n % 8 == 0);
  if (p.rows == 0) return;
  silu_mul_kernel<<<blocks_for(p.rows * p.n / 8, kThreads), kThreads>>>(p);
  check("silu_mul");
}

void fused_silu_mul_backward(const SiluMul& p) {
  if (p.rows == 0) return;
  silu_mul_backward_kernel<<<blocks_for(p.rows * p.n / 8, kThreads), kThreads>>>(p);
  check("silu_mul backward");
}

void fused_run_means(const RunMeans& p) {
  MSA_CHECK(p.n % 8 == 0);
  if (p.runs == 0) return;
  run_means_kernel<<<static_cast<unsigned>(p.runs), column_threads(p.n)>>>(p);
  check("run_means");
}

void fused_run_means_backward(const RunMeans& p) {
  if (p.runs == 0) return;
  run_means_backward_kernel<<<static_cast<unsigned>(p.runs), column_threads(p.n)>>>(p);
  check("run_means backward");
}

}  // namespace msa::train
