#include <algorithm>

#include "ops/gemv_cuda.h"
#include "ops/kernels.cuh"

namespace msa::cuda {
namespace {

constexpr int kElements = 8;       // of one 16-byte load
constexpr int kMostThreads = 512;  // of a block
constexpr int kMostWarps = kMostThreads / kWarp;
constexpr int kMostPieces = 4;                  // 16-byte pieces of a row of the weight that one thread holds
constexpr int kLeastThreads = 64;               // one for every sum of a turn
constexpr int kThreadsPerProcessor = 512;       // few, so that the next kernel's find room beside them
constexpr int kSteps = 4;                       // of the rows that are under way
constexpr int64_t kLeastOutputs = 4;            // of a block
constexpr unsigned kMostPrefetched = 96 << 10;  // bytes of a block's weights

/// What stands around the product: nothing, the norm before, or that and the gate behind.
enum class Kind { kPlain, kNormed, kGated };

struct Parameters {
  const __nv_bfloat16* weight;  // [out, in]; kGated: [2 · out, in]
  const void* x;                // BF16 [T, in]; to be normed F32
  const float* norm;            // [in]
  __nv_bfloat16* h;             // [T, in] or null
  void* y;                      // [T, out]
  int64_t x_row_bytes, h_row_bytes, y_row_bytes;
  float eps;
  int pieces, out;
  int accumulate, y_bf16;
};

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

/// The outputs [begin, end) of one block; its rows of the weight count from 0, with kGated gate and partner in turns.
template <bool kGated>
struct Share {
  int begin, end;

  __device__ explicit Share(int out)
      : begin(static_cast<int>(static_cast<int64_t>(out) * blockIdx.x / gridDim.x)),
        end(static_cast<int>(static_cast<int64_t>(out) * (blockIdx.x + 1) / gridDim.x)) {}
  __device__ int rows() const { return (end - begin) * (kGated ? 2 : 1); }
  __device__ const uint4* row(const Parameters& p, int r) const {
    const int64_t output = kGated ? begin + r / 2 + (r % 2 != 0 ? p.out : 0) : begin + r;
    return reinterpret_cast<const uint4*>(p.weight) + output * p.pieces;
  }
  /// The weights behind the first `skip` rows, as far as it pays, on their way into the L2 cache.
  __device__ void prefetch(const Parameters& p, int skip) const {
    constexpr int kStreams = kGated ? 2 : 1;
    const int stream = static_cast<int>(threadIdx.x), first = skip / kStreams, n = end - begin - first;
    if (stream >= kStreams || n <= 0) return;
    const auto bytes = static_cast<unsigned>(n) * static_cast<unsigned>(p.pieces) * 16u;
    prefetch_l2(row(p, first * kStreams + stream), min(bytes, kMostPrefetched / kStreams));
  }
};

/// Rows of the weight on their way into shared memory, kUnroll a step and kSteps steps ahead. A thread copies what it
/// reads itself, so that no thread waits for another.
template <int kUnroll, int kPieces, bool kGated>
class Ring {
 public:
  static_assert(!kGated || kUnroll % 2 == 0);

  __device__ Ring(const Parameters& p, const Share<kGated>& share, uint4* memory)
      : place_(memory + threadIdx.x),
        source_(share.row(p, 0) + threadIdx.x),
        partner_(kGated ? static_cast<int64_t>(p.out) * p.pieces : 0),
        pieces_(p.pieces),
        left_(share.rows()) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) start(step);
  }

  /// The pieces of the next step; those behind the last row are zeros.
  __device__ void take(uint4 (&w)[kUnroll][kPieces]) {
    wait_for_all_copies_but<kSteps - 1>();
#pragma unroll
    for (int i = 0; i < kUnroll * kPieces; ++i) w[i / kPieces][i % kPieces] = *place(slot_, i);
    start(slot_);
    slot_ = slot_ + 1 == kSteps ? 0 : slot_ + 1;
  }

 private:
  static constexpr int kRowsAside = kGated ? 2 : 1;  // a gate's row and its partner's

  __device__ uint4* place(int slot, int i) const {
    return place_ + (slot * kUnroll * kPieces + i) * static_cast<int>(blockDim.x);
  }
  __device__ void start(int slot) {
#pragma unroll
    for (int i = 0; i < kUnroll * kPieces; ++i) {
      const int row = i / kPieces, column = i % kPieces * static_cast<int>(blockDim.x);
      const bool is_there = row < left_ && column + static_cast<int>(threadIdx.x) < pieces_;
      const int64_t at = row / kRowsAside * pieces_ + (row % kRowsAside != 0 ? partner_ : 0) + column;
      copy_to_shared_or_zero(place(slot, i), source_ + (is_there ? at : 0), is_there);
    }
    commit_copies_to_shared();
    source_ += kUnroll / kRowsAside * pieces_;
    left_ -= kUnroll;
  }

  uint4* place_;         // [kSteps, kUnroll, kPieces] of this thread, blockDim.x apart
  const uint4* source_;  // this thread's first piece of the next row
  int64_t partner_;      // from a gate's row to its partner's
  int pieces_, left_;    // of a row; rows that were not started
  int slot_ = 0;
};

__device__ inline uint32_t pack(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}

/// This thread's pieces of row t, normed.
template <int kPieces>
__device__ void load_normed(const Parameters& p, int t, uint4 (&x)[kPieces]) {
  __shared__ float sums[kWarp];
  using Values = Pack<float, 4>;
  const auto* from = reinterpret_cast<const Values*>(row_of(static_cast<const float*>(p.x), t, p.x_row_bytes));
  const auto* norm = reinterpret_cast<const Values*>(p.norm);
  Values values[kPieces][2], weights[kPieces][2];
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kPieces; ++k) {
    const int piece = static_cast<int>(threadIdx.x + k * blockDim.x);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      values[k][half] = piece < p.pieces ? from[2 * piece + half] : Values{};
      weights[k][half] = piece < p.pieces ? norm[2 * piece + half] : Values{};
#pragma unroll
      for (int j = 0; j < 4; ++j) squares += values[k][half].values[j] * values[k][half].values[j];
    }
  }
  __syncthreads();  // sums of the row before have been read
  const float n = static_cast<float>(p.pieces * kElements);
  const float scale = 1.0f / sqrtf(block_sum(squares, sums) / n + p.eps);
#pragma unroll
  for (int k = 0; k < kPieces; ++k) {
    const int piece = static_cast<int>(threadIdx.x + k * blockDim.x);
    uint32_t packed[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const Values &v = values[k][j / 2], &w = weights[k][j / 2];
      const int i = j % 2 * 2;
      packed[j] = pack(v.values[i] * scale * w.values[i], v.values[i + 1] * scale * w.values[i + 1]);
    }
    x[k] = make_uint4(packed[0], packed[1], packed[2], packed[3]);
    if (p.h != nullptr && blockIdx.x == 0 && piece < p.pieces) {
      reinterpret_cast<uint4*>(row_of(p.h, t, p.h_row_bytes))[piece] = x[k];
    }
  }
}

template <int kTokens, int kPieces, bool kNormed>
__device__ void load_x(const Parameters& p, uint4 (&x)[kTokens][kPieces]) {
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if constexpr (kNormed) {
      load_normed(p, t, x[t]);
    } else {
      const uint4* from = row_of(static_cast<const uint4*>(p.x), t, p.x_row_bytes);
#pragma unroll
      for (int k = 0; k < kPieces; ++k) {
        const int piece = static_cast<int>(threadIdx.x + k * blockDim.x);
        x[t][k] = piece < p.pieces ? from[piece] : uint4{};
      }
    }
  }
}

/// Where one thread's output of a turn goes.
struct Target {
  float* sum = nullptr;  // F32, or null
  __nv_bfloat16* rounded = nullptr;
  float before = 0;  // what is added to

  __device__ Target(const Parameters& p, int t, int output) {
    if (p.y_bf16) {
      rounded = row_of(static_cast<__nv_bfloat16*>(p.y), t, p.y_row_bytes) + output;
    } else {
      sum = row_of(static_cast<float*>(p.y), t, p.y_row_bytes) + output;
      if (p.accumulate) before = *sum;
    }
  }
  __device__ void write(float value) const {
    if (sum != nullptr)
      *sum = before + value;
    else
      store(rounded, value);
  }
};

/// All threads of a block share out one row of the weight, each with its own pieces of x in registers. The first rows
/// are copied, more of them fetched into the L2 cache, while the kernel before still runs.
template <int kTokens, int kPieces, Kind kKind>
__global__ void __launch_bounds__(kMostThreads, kTokens == 1 ? 2 : 1)
    gemv_kernel(const __grid_constant__ Parameters p) {
  constexpr bool kGated = kKind == Kind::kGated;
  constexpr int kUnroll = kMostPieces / kPieces;
  constexpr int kTurn = kLeastThreads / kTokens / 4 * 4;  // rows between two reductions over the block
  static_assert(kTurn % kUnroll == 0 && kTurn * kTokens <= kLeastThreads);
  __shared__ float sums[kTokens][kTurn][kMostWarps + 1];  // one more: other banks
  const Share<kGated> share(p.out);
  const int rows = share.rows(), lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, warps = static_cast<int>(blockDim.x) / kWarp;
  extern __shared__ uint4 ring_memory[];
  Ring<kUnroll, kPieces, kGated> ring(p, share, ring_memory);
  share.prefetch(p, kSteps * kUnroll);
  uint4 x[kTokens][kPieces];
  wait_for_previous_kernel();
  let_next_kernel_start();
  load_x<kTokens, kPieces, kKind != Kind::kPlain>(p, x);
  for (int base = 0; base < rows; base += kTurn) {
    const int outputs = min(kTurn, rows - base) / (kGated ? 2 : 1);
    const int t = static_cast<int>(threadIdx.x) / outputs, o = static_cast<int>(threadIdx.x) % outputs;
    const bool writes = t < kTokens;
    const Target target(p, writes ? t : 0, share.begin + base / (kGated ? 2 : 1) + o);
    for (int r = 0; r < min(kTurn, rows - base); r += kUnroll) {
      uint4 w[kUnroll][kPieces];
      ring.take(w);
#pragma unroll
      for (int i = 0; i < kUnroll * kTokens; ++i) {
        const int u = i / kTokens, token = i % kTokens;
        float sum = 0;
#pragma unroll
        for (int k = 0; k < kPieces; ++k) sum = dot_8(w[u][k], x[token][k], sum);
        sum = warp_sum(sum);
        if (lane == 0) sums[token][r + u][warp] = sum;
      }
    }
    __syncthreads();
    if (writes) {
      const auto total = [&](int r) {
        float sum = 0;
        for (int i = 0; i < warps; ++i) sum += sums[t][r][i];
        return sum;
      };
      target.write(kGated ? silu(total(2 * o)) * total(2 * o + 1) : total(o));
    }
    __syncthreads();
  }
  wait_for_copies_to_shared();
}

struct Layout {
  int pieces, threads;  // of a thread, of a block
};

/// For rows of `all` pieces.
Layout layout(int64_t all) {
  const int64_t pieces = ceil_div(all, kMostThreads);
  const int64_t threads = ceil_div(ceil_div(all, pieces), kWarp) * kWarp;
  return {static_cast<int>(pieces), static_cast<int>(std::max<int64_t>(threads, kLeastThreads))};
}

template <int kTokens, int kPieces, Kind kKind>
void launch(Context& context, const Parameters& p, int threads) {
  const int64_t most = int64_t{context.cuda->processors} * std::max(1, (kThreadsPerProcessor + threads / 4) / threads);
  const auto blocks = static_cast<unsigned>(std::min(most, ceil_div(p.out, kLeastOutputs)));
  const auto kernel = gemv_kernel<kTokens, kPieces, kKind>;
  const int shared = kSteps * (kMostPieces / kPieces * kPieces) * threads * static_cast<int>(sizeof(uint4));
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "gemv");
  launch_overlapping(context, kernel, dim3(blocks), static_cast<unsigned>(threads), static_cast<size_t>(shared), p);
}

/// The pieces that a thread can hold beside those of its x.
constexpr int most_pieces(int tokens, Kind kind) { return kind == Kind::kPlain && tokens <= 2 ? kMostPieces : 2; }

template <int kTokens, Kind kKind>
void launch(Context& context, const Parameters& p) {
  const Layout l = layout(p.pieces);
  if (l.pieces == 1) return launch<kTokens, 1, kKind>(context, p, l.threads);
  if (l.pieces == 2) return launch<kTokens, 2, kKind>(context, p, l.threads);
  if constexpr (most_pieces(kTokens, kKind) > 2) {
    if (l.pieces == 3) return launch<kTokens, 3, kKind>(context, p, l.threads);
    return launch<kTokens, 4, kKind>(context, p, l.threads);
  }
}

template <int kTokens>
void launch(Context& context, Kind kind, const Parameters& p) {
  switch (kind) {
    case Kind::kPlain: return launch<kTokens, Kind::kPlain>(context, p);
    case Kind::kNormed: return launch<kTokens, Kind::kNormed>(context, p);
    case Kind::kGated: return launch<kTokens, Kind::kGated>(context, p);
  }
}

Kind kind_of(const Gemv& g) { return g.gated ? Kind::kGated : g.norm.empty() ? Kind::kPlain : Kind::kNormed; }

}  // namespace

bool gemv_fits(const Gemv& g) {
  const int64_t in = g.weight.dim(1), rows = g.x.rows();
  if (rows < 1 || rows > Gemv::kMostRows || in % kElements != 0) return false;
  if (layout(in / kElements).pieces > most_pieces(static_cast<int>(rows), kind_of(g))) return false;
  return g.weight.dtype == DType::kBF16 && is_aligned(g.weight, 16) && is_aligned(g.x, 16) &&
         (g.norm.empty() || is_aligned(g.norm, 16)) && (g.h.empty() || is_aligned(g.h, 16)) &&
         g.x.dtype == (g.norm.empty() ? DType::kBF16 : DType::kF32);
}

void gemv(Context& context, const Gemv& g) {
  MSA_CHECK(gemv_fits(g) && !(g.gated && g.norm.empty()));
  Parameters p{};
  p.weight = g.weight.as<__nv_bfloat16>();
  p.x = g.x.data;
  p.norm = g.norm.as<float>();
  p.h = g.h.as<__nv_bfloat16>();
  p.y = g.y.data;
  p.x_row_bytes = g.x.row_bytes, p.h_row_bytes = g.h.row_bytes, p.y_row_bytes = g.y.row_bytes;
  p.eps = g.eps;
  p.pieces = static_cast<int>(g.weight.dim(1) / kElements);
  p.out = static_cast<int>(g.gated ? g.weight.rows() / 2 : g.weight.rows());
  p.accumulate = g.accumulate;
  p.y_bf16 = g.y.dtype == DType::kBF16;
  switch (g.x.rows()) {
    case 1: return launch<1>(context, kind_of(g), p);
    case 2: return launch<2>(context, kind_of(g), p);
    case 3: return launch<3>(context, kind_of(g), p);
    default: return launch<4>(context, kind_of(g), p);
  }
}

}  // namespace msa::cuda
