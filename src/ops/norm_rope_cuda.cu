#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kWide = 8;       // elements of a 16-byte load
constexpr int kMostPairs = 8;  // of a lane: head sizes up to 512

struct Parameters {
  void* q;  // [T, H, d]
  void* k;  // [T, G, d]
  int64_t q_row_bytes, k_row_bytes;
  const float* q_norm;       // [d] or null
  const float* k_norm;       // [d] or null
  const float* cos_sin;      // [positions, 2, half]
  const int32_t* positions;  // [T]
  int64_t rows;
  int heads, kv_heads, half;
  float eps;
};

/// One warp a head; a lane keeps pairs (i, half + i) in registers, two neighbours of them where kPack is 2.
template <class T, int kPack>
__global__ void norm_rope_kernel(const Parameters p) {
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int all = p.heads + p.kv_heads, lane = threadIdx.x % kWarp;
  if (index >= p.rows * all) return;
  const int64_t row = index / all;
  const int head = static_cast<int>(index % all);
  const bool is_query = head < p.heads;
  T* x = is_query ? row_of(static_cast<T*>(p.q), row, p.q_row_bytes) + head * 2 * p.half
                  : row_of(static_cast<T*>(p.k), row, p.k_row_bytes) + (head - p.heads) * 2 * p.half;
  using Values = Pack<T, kPack>;
  float a[kMostPairs][kPack], b[kMostPairs][kPack];
  float squares = 0;
#pragma unroll
  for (int s = 0; s < kMostPairs; ++s) {
    const int i = (s * kWarp + lane) * kPack;
    if (i >= p.half) break;
    const Values low = *reinterpret_cast<const Values*>(x + i), high = *reinterpret_cast<const Values*>(x + p.half + i);
    for (int j = 0; j < kPack; ++j) {
      a[s][j] = load(&low.values[j]);
      b[s][j] = load(&high.values[j]);
      squares += a[s][j] * a[s][j] + b[s][j] * b[s][j];
    }
  }
  const float* norm = is_query ? p.q_norm : p.k_norm;
  const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(2 * p.half) + p.eps);
  const float* cos = p.cos_sin + static_cast<int64_t>(p.positions[row]) * 2 * p.half;
  const float* sin = cos + p.half;
#pragma unroll
  for (int s = 0; s < kMostPairs; ++s) {
    const int i = (s * kWarp + lane) * kPack;
    if (i >= p.half) break;
    Values low, high;
    for (int j = 0; j < kPack; ++j) {
      const float u = norm == nullptr ? a[s][j] : a[s][j] * scale * norm[i + j];
      const float v = norm == nullptr ? b[s][j] : b[s][j] * scale * norm[p.half + i + j];
      store(&low.values[j], u * cos[i + j] - v * sin[i + j]);
      store(&high.values[j], v * cos[i + j] + u * sin[i + j]);
    }
    *reinterpret_cast<Values*>(x + i) = low;
    *reinterpret_cast<Values*>(x + p.half + i) = high;
  }
}

/// Heads of 16 · kLanes elements: kLanes lanes a head, eight neighbouring pairs each.
template <int kLanes>
__global__ void __launch_bounds__(kThreads) norm_rope_wide_kernel(const Parameters p) {
  using Values = Pack<__nv_bfloat16, kWide>;
  using Four = Pack<float, 4>;
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const int all = p.heads + p.kv_heads, i = static_cast<int>(threadIdx.x) % kLanes * kWide;
  const bool is_head = index < p.rows * all;  // all lanes of a warp take part in the sums
  const int64_t row = is_head ? index / all : 0;
  const int head = is_head ? static_cast<int>(index % all) : 0;
  const bool is_query = head < p.heads;
  auto* x = is_query ? row_of(static_cast<__nv_bfloat16*>(p.q), row, p.q_row_bytes) + head * 2 * p.half + i
                     : row_of(static_cast<__nv_bfloat16*>(p.k), row, p.k_row_bytes) + (head - p.heads) * 2 * p.half + i;
  Values low{}, high{};
  if (is_head) {
    low = *reinterpret_cast<const Values*>(x);
    high = *reinterpret_cast<const Values*>(x + p.half);
  }
  float a[kWide], b[kWide];
#pragma unroll
  for (int j = 0; j < kWide; ++j) a[j] = load(&low.values[j]), b[j] = load(&high.values[j]);
  const float* norm = is_query ? p.q_norm : p.k_norm;
  if (p.q_norm != nullptr) {
    float squares = 0;
#pragma unroll
    for (int j = 0; j < kWide; ++j) squares += a[j] * a[j] + b[j] * b[j];
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) squares += __shfl_xor_sync(kAllLanes, squares, step);
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(2 * p.half) + p.eps);
#pragma unroll
    for (int j = 0; j < kWide; ++j) {
      a[j] *= scale * norm[i + j];
      b[j] *= scale * norm[p.half + i + j];
    }
  }
  if (!is_head) return;
  const float* cos = p.cos_sin + static_cast<int64_t>(p.positions[row]) * 2 * p.half + i;
#pragma unroll
  for (int j = 0; j < kWide; j += 4) {
    const Four c = *reinterpret_cast<const Four*>(cos + j), s = *reinterpret_cast<const Four*>(cos + p.half + j);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      store(&low.values[j + e], a[j + e] * c.values[e] - b[j + e] * s.values[e]);
      store(&high.values[j + e], b[j + e] * c.values[e] + a[j + e] * s.values[e]);
    }
  }
  *reinterpret_cast<Values*>(x) = low;
  *reinterpret_cast<Values*>(x + p.half) = high;
}

template <int kLanes>
void launch_wide(Context& context, const Parameters& p) {
  const auto blocks = static_cast<unsigned>(ceil_div(p.rows * (p.heads + p.kv_heads) * kLanes, kThreads));
  norm_rope_wide_kernel<kLanes><<<blocks, kThreads, 0, cuda_stream(context)>>>(p);
}

/// False, and nothing done, where the wide kernel does not take these shapes.
bool norm_rope_wide(Context& context, const Tensor& q, const Tensor& k, const Parameters& p) {
  if (q.dtype != DType::kBF16 || !is_aligned(q, 16) || !is_aligned(k, 16)) return false;
  if ((p.q_norm == nullptr) != (p.k_norm == nullptr)) return false;
  switch (p.half) {
    case 4 * kWide: launch_wide<4>(context, p); return true;
    case 8 * kWide: launch_wide<8>(context, p); return true;
    case 16 * kWide: launch_wide<16>(context, p); return true;
    default: return false;
  }
}

}  // namespace

void norm_rope_cuda(Context& context, const NormRope& how, const Tensor& positions, const Tensor& q, const Tensor& k) {
  if (q.rows() == 0) return;
  Parameters p{};
  p.q = q.data, p.k = k.data;
  p.q_row_bytes = q.row_bytes, p.k_row_bytes = k.row_bytes;
  p.q_norm = how.q_norm.as<float>(), p.k_norm = how.k_norm.as<float>();
  p.cos_sin = how.table->device.as<float>();
  p.positions = positions.as<int32_t>();
  p.rows = q.rows();
  p.heads = static_cast<int>(q.dim(1)), p.kv_heads = static_cast<int>(k.dim(1)), p.half = how.table->head_dim / 2;
  p.eps = how.eps;
  MSA_CHECK(p.half <= kMostPairs * kWarp);
  if (norm_rope_wide(context, q, k, p)) return check_launch("norm_rope");
  const auto blocks = static_cast<unsigned>(ceil_div(p.rows * (p.heads + p.kv_heads), kThreads / kWarp));
  with_type(q.dtype, [&](auto* type) {
    using T = Element<decltype(type)>;
    const auto bytes = static_cast<int64_t>(2 * sizeof(T));
    const bool packs = p.half % 2 == 0 && is_aligned(q, bytes) && is_aligned(k, bytes);
    const auto kernel = packs ? norm_rope_kernel<T, 2> : norm_rope_kernel<T, 1>;
    kernel<<<blocks, kThreads, 0, cuda_stream(context)>>>(p);
  });
  check_launch("norm_rope");
}

}  // namespace msa
