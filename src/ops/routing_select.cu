#include <cuda_bf16.h>

#include <algorithm>

#include "ops/routing_select.cuh"

namespace msa {
namespace {

constexpr int kSelectThreads = 1024;
constexpr int kSelectRoom = 2 * kSelectThreads;
constexpr int kWarpsABlock = 8;
constexpr int kRanksAThread = 4;  // loaded together
constexpr int kFewRanks = 64;     // sorted as they are

/// A score and its document as one number: no two are equal, and of equal scores the lower document is greater.
__device__ inline uint64_t rank_of(uint32_t order, int document) {
  return order == 0 ? 0 : static_cast<uint64_t>(order) << 32 | static_cast<uint32_t>(~document);
}

/// The best ranks that a block has seen.
struct BlockBest {
  uint64_t ranks[kSelectRoom];
  int count;
  uint64_t threshold;  // k ranks at least as great have been seen, or k greater ones; 0: not yet
  uint64_t warp_best[kSelectThreads / 32];

  /// All threads: the ranks in falling order, cut to k.
  __device__ void sort_and_cut(int k) {
    int size = 2;
    while (size < count) size *= 2;
    for (int i = count + static_cast<int>(threadIdx.x); i < size; i += kSelectThreads) ranks[i] = 0;
    for (int run = 2; run <= size; run *= 2) {
      for (int distance = run / 2; distance > 0; distance /= 2) {
        __syncthreads();
        const int pair = static_cast<int>(threadIdx.x);
        if (pair >= size / 2) continue;
        const int low = pair / distance * 2 * distance + pair % distance, high = low + distance;
        const bool falling = (low & run) == 0;
        const uint64_t a = ranks[low], b = ranks[high];
        if ((a < b) == falling) ranks[low] = b, ranks[high] = a;
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      count = min(count, k);
      if (count == k) threshold = ranks[k - 1];
    }
    __syncthreads();
  }

  /// All threads, each with one rank: what is below the k-th best of the warps' best is not among the k best, which
  /// leaves few to sort.
  __device__ void raise_threshold(uint64_t rank, int k) {
    constexpr int kWarps = kSelectThreads / 32;
    static_assert(kWarps == 32);
    if (k > kWarps) return;
    const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    for (int offset = 16; offset > 0; offset /= 2) {
      const uint64_t other = __shfl_xor_sync(0xffffffffu, rank, offset);
      rank = other > rank ? other : rank;
    }
    if (lane == 0) warp_best[warp] = rank;
    __syncthreads();
    if (warp == 0) {
      const uint64_t mine = warp_best[lane], before = threshold;
      int greater = 0;
      for (int i = 0; i < kWarps; ++i) greater += __shfl_sync(0xffffffffu, mine, i) > mine ? 1 : 0;
      __syncwarp();  // all lanes have read it
      if (greater == k - 1 && mine > before) threshold = mine - 1;
    }
    __syncthreads();
  }

  /// All threads, each with some ranks; 0 = none.
  __device__ void add(const uint64_t (&some)[kRanksAThread], int k) {
    uint64_t largest = some[0];
#pragma unroll
    for (int i = 1; i < kRanksAThread; ++i) largest = some[i] > largest ? some[i] : largest;
    const int above = __syncthreads_count(largest > threshold);
    if (above == 0) return;
    if (above > kFewRanks) raise_threshold(largest, k);
#pragma unroll
    for (int i = 0; i < kRanksAThread; ++i) {
      if (some[i] > threshold) ranks[atomicAdd(&count, 1)] = some[i];
      __syncthreads();
      if (count > kSelectRoom - kSelectThreads) sort_and_cut(k);
      __syncthreads();
    }
  }

  /// All threads: the ranks that rank_at(i) gives for `begin` <= i < n in steps of `step` runs.
  template <class RankAt>
  __device__ void add_all(int64_t begin, int64_t step, int64_t n, int k, const RankAt& rank_at) {
    for (int64_t base = begin; base < n; base += step) {
      uint64_t some[kRanksAThread];
#pragma unroll
      for (int j = 0; j < kRanksAThread; ++j) {
        const int64_t i = base + j * kSelectThreads + threadIdx.x;
        some[j] = i < n ? rank_at(i) : 0;
      }
      add(some, k);
    }
    sort_and_cut(k);
  }
};

constexpr int64_t kSelectRun = int64_t{kSelectThreads} * kRanksAThread;  // of a block

__device__ inline void write_selection(const SelectParams& p, const BlockBest& best) {
  RoutingSelection& to = *p.selection;
  const int i = static_cast<int>(threadIdx.x);
  if (i < best.count) {
    to.documents[i] = static_cast<int32_t>(~static_cast<uint32_t>(best.ranks[i]));
    to.scores[i] = score_of_order(static_cast<uint32_t>(best.ranks[i] >> 32));
  }
  if (i != 0) return;
  to.n = best.count;
  to.kth_order = best.count == p.k ? static_cast<uint32_t>(best.ranks[p.k - 1] >> 32) : 0;
  to.candidates = p.n_candidates == nullptr ? 0 : *p.n_candidates;
  to.fell_back = to.candidates > kRoutingCandidates;
}

/// Every block selects from its share; the last one to finish selects from what they found.
__global__ void __launch_bounds__(kSelectThreads) select_kernel(const SelectParams p) {
  __shared__ BlockBest best;
  __shared__ bool last;
  const uint32_t least = p.at_least == nullptr ? 0 : p.at_least->kth_order;
  const uint64_t below = least == 0 ? 0 : (static_cast<uint64_t>(least) << 32) - 1;  // of all ranks that can be chosen
  if (threadIdx.x == 0) best.count = 0, best.threshold = below;
  __syncthreads();
  best.add_all(blockIdx.x * kSelectRun, gridDim.x * kSelectRun, p.n_documents, p.k,
               [&](int64_t i) { return rank_of(p.document_orders[i], static_cast<int>(i)); });
  if (gridDim.x > 1) {
    uint64_t* const mine = p.block_best + blockIdx.x * kMaxRoutingTopK;
    if (threadIdx.x < p.k) mine[threadIdx.x] = static_cast<int>(threadIdx.x) < best.count ? best.ranks[threadIdx.x] : 0;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      last = atomicInc(p.ticket, gridDim.x - 1) == gridDim.x - 1;
      best.count = 0;  // the threshold holds for all
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    if (threadIdx.x == 0) best.threshold = below;
    __syncthreads();
    best.add_all(0, kSelectRun, int64_t{gridDim.x} * p.k, p.k,
                 [&](int64_t i) { return __ldcg(p.block_best + i / p.k * kMaxRoutingTopK + i % p.k); });
  }
  write_selection(p, best);
}

/// Appends `value` of the threads that `wanted` holds for: one atomic addition a warp. All threads of a warp call it.
__device__ inline void append(bool wanted, int32_t value, int32_t* out, int32_t room, int32_t* count) {
  const uint32_t wanting = __ballot_sync(0xffffffffu, wanted);
  if (wanting == 0) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  int32_t first = 0;
  if (lane == 0) first = atomicAdd(count, __popc(wanting));
  first = __shfl_sync(0xffffffffu, first, 0);
  const int32_t at = first + __popc(wanting & ((1u << lane) - 1));
  if (wanted && at < room) out[at] = value;
}

__global__ void candidates_kernel(const CandidateParams p) {
  const int64_t count = p.list.count == nullptr ? p.list.all : *p.list.count;
  const uint32_t threshold = p.lower_best->kth_order;
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * blockDim.x; base < count;
       base += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int64_t i = base + threadIdx.x;
    const int32_t row = i >= count ? 0 : p.list.rows == nullptr ? static_cast<int32_t>(i) : p.list.rows[i];
    const int32_t document = i < count ? p.document_of_chunk[row] : -1;
    const uint32_t upper = document >= 0 ? p.upper_orders[i] : 0;
    if (document >= 0 && upper > p.document_uppers[document]) atomicMax(p.document_uppers + document, upper);
    const bool wanted = document >= 0 && upper >= threshold;
    append(wanted, row, p.candidates, kRoutingCandidates, p.n_candidates);
  }
}

__global__ void permitted_kernel(const int32_t* document_of_chunk, int64_t n_chunks, const uint8_t* permitted,
                                 int32_t* rows, int32_t* n_rows) {
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * blockDim.x; base < n_chunks;
       base += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int64_t i = base + threadIdx.x;
    const int32_t document = i < n_chunks ? document_of_chunk[i] : -1;
    const bool wanted = document >= 0 && permitted[document] != 0;
    append(wanted, static_cast<int32_t>(i), rows, static_cast<int32_t>(n_chunks), n_rows);
  }
}

__global__ void raise_orders_kernel(const uint32_t* orders, int n, uint32_t* to) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) to[i] = max(to[i], orders[i]);
}

__global__ void bounds_kernel(const uint32_t* scores, const uint32_t* lowers, const uint32_t* uppers, int n,
                              float* lower, float* upper) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  lower[i] = score_of_order(max(scores[i], lowers[i]));
  upper[i] = score_of_order(max(scores[i], uppers[i]));
}

__global__ void mark_means_kernel(const float* values, int layers, int64_t n, float threshold, uint8_t* flags) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float sum = 0;
  for (int layer = 0; layer < layers; ++layer) sum += values[layer * n + i];
  const float mean = sum / static_cast<float>(layers);
  flags[i] = mean >= threshold && mean > -INFINITY ? 1 : 0;
}

__device__ inline double sum_of_warp(double x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

__device__ inline float norm_above(double norm) {
  const float above = static_cast<float>(norm * (1 + 0x1p-20));
  return above < 0x1p-126f ? 0x1p-126f : above;  // not fmaxf: NaN stays NaN
}

/// As Rounding of routing_quantise.cc, spread over a warp.
struct WarpRounding {
  float scale, least, most;
  double squares;
  int32_t integer_squares;

  __device__ float of(float x) const {
    return scale > 0 ? fminf(fmaxf(rintf(__fdiv_rn(x, scale)), least), most) : 0.0f;
  }
};

__device__ inline WarpRounding rounding_of(const __nv_bfloat16* key, int n, float scale, float least, float most) {
  WarpRounding r{scale, least, most, 0, 0};
  for (int i = static_cast<int>(threadIdx.x % 32); i < n; i += 32) {
    const float x = __bfloat162float(key[i]), rounded = r.of(x);
    const float error = static_cast<float>(static_cast<double>(x) - static_cast<double>(scale) * rounded);
    r.squares += static_cast<double>(error) * static_cast<double>(error);
    r.integer_squares += static_cast<int>(rounded) * static_cast<int>(rounded);
  }
  r.squares = sum_of_warp(r.squares);
  r.integer_squares = __reduce_add_sync(0xffffffffu, r.integer_squares);
  return r;
}

__device__ inline float packed_scale(int i) {
  return __fdiv_rn(static_cast<float>(kFirstPackedScale + i), kPackedScaleParts);
}

template <int kBits>
__device__ inline WarpRounding best_rounding(const __nv_bfloat16* key, int n, float largest) {
  if constexpr (kBits == 8) return rounding_of(key, n, __fdiv_rn(largest, 127.0f), -127.0f, 127.0f);
  WarpRounding best = rounding_of(key, n, __fmul_rn(largest, packed_scale(0)), -8.0f, 7.0f);
  for (int i = 1; i < kPackedScales; ++i) {
    const WarpRounding other = rounding_of(key, n, __fmul_rn(largest, packed_scale(i)), -8.0f, 7.0f);
    if (other.squares < best.squares) best = other;
  }
  return best;
}

/// A warp; step for step as quantise_key of routing_quantise.cc, so that the bits are the same.
template <int kBits>
__device__ inline void quantise_row(const __nv_bfloat16* key, int n, int8_t* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  float largest = 0;
  double squares = 0;
  for (int i = lane; i < n; i += 32) {
    const float x = __bfloat162float(key[i]);
    largest = fmaxf(largest, fabsf(x));
    squares += static_cast<double>(x) * static_cast<double>(x);
  }
  for (int offset = 16; offset > 0; offset /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  const float norm = norm_above(__dsqrt_rn(sum_of_warp(squares)));
  bool certain = norm <= kMaxCertifiedNorm;
  WarpRounding rounding = best_rounding<kBits>(key, n, certain ? largest : 0.0f);
  if (kBits == 4 && rounding.scale > 0 && rounding.scale < kLeastPackedScale) {
    certain = false;
    rounding.scale = 0;
  }
  const auto value = [&](int i) { return static_cast<int>(rounding.of(__bfloat162float(key[i]))); };
  if constexpr (kBits == 8) {
    for (int i = lane; i < n; i += 32) out[i] = static_cast<int8_t>(value(i));
  } else {
    for (int i = lane; i < n / 2; i += 32) {
      const int first = 2 * i - lane;  // element `lane` of the block
      const unsigned low = static_cast<unsigned>(value(first)) & 15u;
      const unsigned high = static_cast<unsigned>(value(first + kPackedHalf)) & 15u;
      out[i] = static_cast<int8_t>(low | high << 4);
    }
  }
  if (lane != 0) return;
  const double length = __dsqrt_rn(static_cast<double>(rounding.integer_squares));
  const float scale = kBits == 8 ? rounding.scale : rounding.scale / kPackedUnit;
  *reinterpret_cast<KeyCertificate*>(out + n * kBits / 8) =
      certain ? KeyCertificate{scale, norm_above(__dsqrt_rn(rounding.squares)), norm,
                               norm_above(static_cast<double>(rounding.scale) * length)}
              : KeyCertificate{0, INFINITY, INFINITY, 0};
}

template <int kBits>
__global__ void quantise_kernel(const __nv_bfloat16* keys, int64_t rows, int n, char* out, int64_t row_bytes) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarpsABlock + threadIdx.x / 32;
  if (row < rows) quantise_row<kBits>(keys + row * n, n, reinterpret_cast<int8_t*>(out + row * row_bytes));
}

constexpr int kQueryThreads = 256;

/// A block a query.
__global__ void quantise_queries_kernel(const float* queries, int n, char* out, int64_t row_bytes) {
  __shared__ __nv_bfloat16 rounded[kMaxRoutingWidth];  // read four times, by one warp
  const int64_t at = static_cast<int64_t>(blockIdx.x) * n;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kQueryThreads)
    rounded[i] = __float2bfloat16_rn(queries[at + i]);
  __syncthreads();
  if (threadIdx.x < 32) quantise_row<8>(rounded, n, reinterpret_cast<int8_t*>(out + blockIdx.x * row_bytes));
}

__global__ void scores_kernel(const uint32_t* orders, int64_t n, float* scores) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) scores[i] = score_of_order(orders[i]);
}

unsigned blocks_for(int64_t items, int64_t a_block, int64_t most) {
  return static_cast<unsigned>(std::clamp<int64_t>((items + a_block - 1) / a_block, 1, most));
}

constexpr int64_t kMostBlocks = 1 << 30;
constexpr int kAppendBlocks = 1024;

}  // namespace

void select_best(const SelectParams& p, cudaStream_t stream) {
  select_kernel<<<blocks_for(p.n_documents, kSelectRun, kSelectBlocks), kSelectThreads, 0, stream>>>(p);
  check_cuda(cudaGetLastError(), "select_kernel");
}

void collect_candidates(const CandidateParams& p, cudaStream_t stream) {
  candidates_kernel<<<blocks_for(p.list.all, 256, kAppendBlocks), 256, 0, stream>>>(p);
  check_cuda(cudaGetLastError(), "candidates_kernel");
}

void raise_orders(const uint32_t* orders, int n, uint32_t* to, cudaStream_t stream) {
  raise_orders_kernel<<<blocks_for(n, 256, kMostBlocks), 256, 0, stream>>>(orders, n, to);
  check_cuda(cudaGetLastError(), "raise_orders_kernel");
}

void bounds_of_orders(const uint32_t* scores, const uint32_t* lowers, const uint32_t* uppers, int n, float* lower,
                      float* upper, cudaStream_t stream) {
  bounds_kernel<<<blocks_for(n, 256, kMostBlocks), 256, 0, stream>>>(scores, lowers, uppers, n, lower, upper);
  check_cuda(cudaGetLastError(), "bounds_kernel");
}

void mark_means(const float* values, int layers, int64_t n, float threshold, uint8_t* flags, void* stream) {
  if (n == 0) return;
  mark_means_kernel<<<blocks_for(n, 256, kMostBlocks), 256, 0, static_cast<cudaStream_t>(stream)>>>(values, layers, n,
                                                                                                    threshold, flags);
  check_cuda(cudaGetLastError(), "mark_means_kernel");
}

void quantise_queries(const float* queries, int m, int n, void* out, cudaStream_t stream) {
  quantise_queries_kernel<<<static_cast<unsigned>(m), kQueryThreads, 0, stream>>>(
      queries, n, static_cast<char*>(out), static_cast<int64_t>(quantised_key_bytes(n)));
  check_cuda(cudaGetLastError(), "quantise_queries_kernel");
}

void scores_of_orders(const uint32_t* orders, int64_t n, float* scores, cudaStream_t stream) {
  if (n == 0) return;
  scores_kernel<<<blocks_for(n, 256, kMostBlocks), 256, 0, stream>>>(orders, n, scores);
  check_cuda(cudaGetLastError(), "scores_kernel");
}

void permitted_chunks(const RoutingBank& bank, const uint8_t* permitted, int32_t* rows, int32_t* n_rows, void* stream) {
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  check_cuda(cudaMemsetAsync(n_rows, 0, sizeof(*n_rows), s), "cudaMemsetAsync");
  permitted_kernel<<<blocks_for(bank.n_chunks, 256, kAppendBlocks), 256, 0, s>>>(bank.document_of_chunk, bank.n_chunks,
                                                                                 permitted, rows, n_rows);
  check_cuda(cudaGetLastError(), "permitted_kernel");
}

void quantise_keys_cuda(const bf16* keys, int64_t rows, int n, int bits, void* out, void* stream) {
  MSA_CHECK(n > 0 && n % (bits == 4 ? kPackedWidthStep : kRoutingWidthStep) == 0 && (bits == 4 || bits == 8));
  if (rows == 0) return;
  const auto kernel = bits == 4 ? quantise_kernel<4> : quantise_kernel<8>;
  kernel<<<blocks_for(rows, kWarpsABlock, kMostBlocks), kWarpsABlock * 32, 0, static_cast<cudaStream_t>(stream)>>>(
      reinterpret_cast<const __nv_bfloat16*>(keys), rows, n, static_cast<char*>(out),
      static_cast<int64_t>(quantised_key_bytes(n, bits)));
  check_cuda(cudaGetLastError(), "quantise_kernel");
}

}  // namespace msa
