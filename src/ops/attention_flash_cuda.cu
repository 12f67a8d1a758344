// Blockwise attention with a running softmax on tensor cores (mma.sync, bf16 operands, float32 sums): any GPU since
// Ampere. A block takes 64 query rows of one head, a warp 16 or, where the registers hold them, 32 of them: reading the
// keys and values from shared memory is what bounds it. These come in tiles of 64, the next tile under way while one is
// multiplied. Scores never leave the registers.
#include <cmath>

#include "ops/attention_cuda.h"
#include "ops/kernels.cuh"

namespace msa::cuda {
namespace {

constexpr int kQueryTile = 64;
constexpr int kKeyTile = 64;
constexpr int kBytesPerCopy = 16;
constexpr int kRows = 16;  // of one product
static_assert(kQueryTile == Sequences::kTileRows);

/// Who works on a tile of queries of head size kDim.
template <int kDim>
struct Team {
  static constexpr int kBands = kDim == 64 ? 2 : 1;  // of 16 rows, a warp's
  static constexpr int kWarpRows = kBands * kRows;
  static constexpr int kThreads = kQueryTile / kWarpRows * kWarp;
  static_assert(kThreads >= kKeyTile);
};

using bf16x2 = __nv_bfloat162;

/// Four 8x8 matrices of 16-bit elements; every lane names one row of 16 bytes.
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

/// c [16, 8] += a [16, 16] · b [16, 8].
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// 16 bytes from global to shared memory, in the background; zeros where `valid` is false.
__device__ inline void copy_16(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? kBytesPerCopy : 0));
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;"); }
template <int kPending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending));
}

/// Within 2 units in the last place; 0 for -inf.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline uint32_t pack(float low, float high) {
  const bf16x2 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}

/// Tiles [64, kDim] in shared memory; 16-byte pieces of a row are permuted so that eight rows' same piece falls into
/// eight different banks.
template <int kDim>
struct Tile {
  static constexpr int kPieces = kDim * 2 / kBytesPerCopy;  // of a row
  static constexpr int kBytes = 64 * kDim * 2;
  static __device__ uint32_t offset(int row, int piece) {
    return static_cast<uint32_t>((row * kPieces + (piece ^ (row & 7))) * kBytesPerCopy);
  }
};

/// What one block works on. Query row t (of the tile) sees the keys up to `last_key` + t.
struct Work {
  int row_begin, row_end;  // query rows
  int key_base;            // packed: the sequence's first row in k and v
  int last_key;            // of the tile's first row
  int keys;                // of the tile's last row
};

__device__ Work find_work(const AttentionParameters& p, const DeviceSpans& spans) {
  if (p.tiles != nullptr) {
    const int4 tile = p.tiles[blockIdx.x];
    return {tile.x, tile.y, tile.z, tile.x - tile.z, tile.y - tile.z};
  }
  const int begin = static_cast<int>(blockIdx.x) * kQueryTile, end = min(p.rows, begin + kQueryTile);
  const int hidden = spans.keys - p.rows;
  return {begin, end, 0, hidden + begin, hidden + end};
}

/// Where the rows of one tile of keys and values lie.
struct TileRows {
  const char* k[kKeyTile];
  const char* v[kKeyTile];
};

/// One thread a key, for contexts of several spans.
__device__ void find_rows(const DeviceSpans& spans, int first, int keys, TileRows& rows) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= kKeyTile || first + i >= keys) return;
  int s = 0;
  while (first + i >= spans.list[s].first + spans.list[s].rows) ++s;
  const int64_t row = first + i - spans.list[s].first;
  rows.k[i] = static_cast<const char*>(spans.list[s].k) + row * spans.list[s].k_row_bytes;
  rows.v[i] = static_cast<const char*>(spans.list[s].v) + row * spans.list[s].v_row_bytes;
}

/// Starts copying keys and values [first, first + 64) of one head; those from `keys` on become zeros.
template <int kDim, bool kPacked>
__device__ void copy_tile(const DeviceSpans& spans, const TileRows& rows, const Work& w, int group, int first,
                          uint32_t keys_to, uint32_t values_to) {
  constexpr int kPieces = Tile<kDim>::kPieces;
  const DeviceSpan& span = spans.list[0];
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < kKeyTile * kPieces; i += Team<kDim>::kThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    const bool valid = first + row < w.keys;
    const int64_t source_row = w.key_base + (valid ? first + row : 0);
    const int64_t column = (static_cast<int64_t>(group) * kDim) * 2 + piece * kBytesPerCopy;
    const char* k = static_cast<const char*>(span.k) + source_row * span.k_row_bytes;
    const char* v = static_cast<const char*>(span.v) + source_row * span.v_row_bytes;
    if constexpr (!kPacked) {
      if (valid) {
        k = rows.k[row];
        v = rows.v[row];
      }
    }
    copy_16(keys_to + Tile<kDim>::offset(row, piece), k + column, valid);
    copy_16(values_to + Tile<kDim>::offset(row, piece), v + column, valid);
  }
}

/// The running softmax of 16 rows. A lane holds rows lane / 4 and lane / 4 + 8, of each eight columns two.
template <int kDim>
struct State {
  float output[kDim / 8][4] = {};
  float maximum[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};  // of the lane's own columns
};

template <int kDim>
using Queries = uint32_t[Team<kDim>::kBands][kDim / 16][4];
using Scores = float[kKeyTile / 8][4];

/// scores [bands · 16, 64] = queries · keysᵀ.
template <int kDim>
__device__ void score(const Queries<kDim>& queries, uint32_t keys, Scores (&scores)[Team<kDim>::kBands]) {
  constexpr int kBands = Team<kDim>::kBands;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int key = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
#pragma unroll
  for (int i = 0; i < kBands * kKeyTile / 2; ++i) scores[i / (kKeyTile / 2)][i / 4 % (kKeyTile / 8)][i % 4] = 0;
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
#pragma unroll
    for (int n = 0; n < kKeyTile / 16; ++n) {
      uint32_t b[4];
      load_matrices(b, keys + Tile<kDim>::offset(n * 16 + key, step * 2 + half));
#pragma unroll
      for (int band = 0; band < kBands; ++band) {
        multiply(scores[band][2 * n], queries[band][step], b[0], b[1]);
        multiply(scores[band][2 * n + 1], queries[band][step], b[2], b[3]);
      }
    }
  }
}

/// -inf for keys that a row does not see. `first`: the tile's first key, `last_key`: the last one that the band's first
/// row sees.
__device__ inline void mask(Scores& scores, int first, int last_key) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int last = last_key + lane / 4;  // of the first of the lane's rows
#pragma unroll
  for (int n = 0; n < kKeyTile / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = first + n * 8 + lane % 4 * 2 + i % 2;
      if (key > last + i / 2 * 8) scores[n][i] = -INFINITY;
    }
  }
}

/// Scores become weights; the state is rescaled to the new maximum. `scale` holds log2 e.
template <int kDim>
__device__ void soften(Scores& scores, float scale, State<kDim>& state) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top = state.maximum[r];
#pragma unroll
    for (int n = 0; n < kKeyTile / 8; ++n) top = fmaxf(top, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
    // Rounded products: a maximum that stays gives the factor 1 exactly, however large it is.
    const float shift = top == -INFINITY ? 0.0f : __fmul_rn(top, scale);
    const float factor = power_of_two(__fmul_rn(state.maximum[r], scale) - shift);
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kKeyTile / 8; ++n) {
#pragma unroll
      for (int i = 2 * r; i < 2 * r + 2; ++i) {
        scores[n][i] = power_of_two(fmaf(scores[n][i], scale, -shift));
        sum += scores[n][i];
      }
    }
    state.maximum[r] = top;
    state.sum[r] = state.sum[r] * factor + sum;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      state.output[n][2 * r] *= factor;
      state.output[n][2 * r + 1] *= factor;
    }
  }
}

/// output += weights [bands · 16, 64] · values [64, kDim].
template <int kDim>
__device__ void gather_values(const Scores (&weights)[Team<kDim>::kBands], uint32_t values,
                              State<kDim> (&states)[Team<kDim>::kBands]) {
  constexpr int kBands = Team<kDim>::kBands;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int step = 0; step < kKeyTile / 16; ++step) {
    uint32_t a[kBands][4];
#pragma unroll
    for (int band = 0; band < kBands; ++band) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&pair)[4] = weights[band][2 * step + i / 2];
        a[band][i] = pack(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
      }
    }
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      uint32_t b[4];
      load_matrices_transposed(b, values + Tile<kDim>::offset(step * 16 + lane % 16, n * 2 + lane / 16));
#pragma unroll
      for (int band = 0; band < kBands; ++band) {
        multiply(states[band].output[2 * n], a[band], b[0], b[1]);
        multiply(states[band].output[2 * n + 1], a[band], b[2], b[3]);
      }
    }
  }
}

/// The tile of queries by way of shared memory into registers, as left operands.
template <int kDim>
__device__ void load_queries(const AttentionParameters& p, const Work& w, int head, uint32_t shared,
                             Queries<kDim>& queries) {
  constexpr int kPieces = Tile<kDim>::kPieces;
  for (int i = static_cast<int>(threadIdx.x); i < kQueryTile * kPieces; i += Team<kDim>::kThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    const bool valid = w.row_begin + row < w.row_end;
    const char* q = static_cast<const char*>(p.q) + (w.row_begin + (valid ? row : 0)) * p.q_row_bytes;
    copy_16(shared + Tile<kDim>::offset(row, piece), q + head * kDim * 2 + piece * kBytesPerCopy, valid);
  }
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int i = 0; i < Team<kDim>::kBands * kDim / 16; ++i) {
    const int band = i / (kDim / 16), step = i % (kDim / 16);
    const int row = warp * Team<kDim>::kWarpRows + band * kRows + lane % 16;
    load_matrices(queries[band][step], shared + Tile<kDim>::offset(row, step * 2 + lane / 16));
  }
  __syncthreads();  // the memory is the first keys' now
}

/// `first`: the band's first row of the tile.
template <int kDim>
__device__ void store_output(const AttentionParameters& p, const Work& w, int head, int first, State<kDim>& state) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = state.sum[r];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    const int row = w.row_begin + first + lane / 4 + r * 8;
    if (row >= w.row_end) continue;
    char* out = static_cast<char*>(p.out) + row * p.out_row_bytes + (head * kDim + lane % 4 * 2) * 2;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<uint32_t*>(out + n * 16) = pack(state.output[n][2 * r] / sum, state.output[n][2 * r + 1] / sum);
    }
  }
}

/// grid.x: tile of query rows, grid.y: head. Shared memory: two stages of a tile of keys and one of values.
template <int kDim, bool kPacked>
__global__ void __launch_bounds__(Team<kDim>::kThreads)
    attend_flash_kernel(const AttentionParameters p, const __grid_constant__ DeviceSpans spans) {
  extern __shared__ __align__(128) unsigned char memory[];
  __shared__ TileRows rows;
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(memory));
  const Work w = find_work(p, spans);
  const int head = static_cast<int>(blockIdx.y), group = head / p.heads_per_group;
  constexpr int kBands = Team<kDim>::kBands;
  const int first_row = static_cast<int>(threadIdx.x) / kWarp * Team<kDim>::kWarpRows;
  Queries<kDim> queries;
  load_queries<kDim>(p, w, head, shared, queries);

  const auto start_copies = [&](int tile) {
    const uint32_t stage = shared + static_cast<uint32_t>(tile % 2 * 2 * Tile<kDim>::kBytes);
    if constexpr (!kPacked) {
      find_rows(spans, tile * kKeyTile, w.keys, rows);
      __syncthreads();
    }
    copy_tile<kDim, kPacked>(spans, rows, w, group, tile * kKeyTile, stage, stage + Tile<kDim>::kBytes);
  };
  const int tiles = (w.keys + kKeyTile - 1) / kKeyTile;
  const float scale = p.scale * 1.44269504088896341f;  // log2 e
  State<kDim> states[kBands];
  start_copies(0);
  commit_copies();
  for (int tile = 0; tile < tiles; ++tile) {
    __syncthreads();  // the other stage and the rows' addresses have been read
    if (tile + 1 < tiles) start_copies(tile + 1);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    const uint32_t stage = shared + static_cast<uint32_t>(tile % 2 * 2 * Tile<kDim>::kBytes);
    Scores scores[kBands];
    score<kDim>(queries, stage, scores);
#pragma unroll
    for (int band = 0; band < kBands; ++band) {
      const int last_key = w.last_key + first_row + band * kRows;
      if ((tile + 1) * kKeyTile - 1 > last_key) mask(scores[band], tile * kKeyTile, last_key);
      soften<kDim>(scores[band], scale, states[band]);
    }
    gather_values<kDim>(scores, stage + Tile<kDim>::kBytes, states);
  }
#pragma unroll
  for (int band = 0; band < kBands; ++band) {
    store_output<kDim>(p, w, head, first_row + band * kRows, states[band]);
  }
}

template <int kDim, bool kPacked>
void launch(Context& context, const AttentionParameters& p, const DeviceSpans& spans, int64_t tiles) {
  constexpr int kSharedBytes = 4 * Tile<kDim>::kBytes;
  const auto kernel = attend_flash_kernel<kDim, kPacked>;
  const cudaStream_t stream = cuda_stream(context);
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes), "attend_flash");
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(p.heads));
  kernel<<<grid, Team<kDim>::kThreads, kSharedBytes, stream>>>(p, spans);
  check_launch("attend_flash");
}

}  // namespace

void attend_flash(Context& context, const AttentionParameters& p, const DeviceSpans& spans, int64_t tiles) {
  if (p.tiles == nullptr) {
    tiles = ceil_div(p.rows, kQueryTile);
    return p.d == 64 ? launch<64, false>(context, p, spans, tiles) : launch<128, false>(context, p, spans, tiles);
  }
  p.d == 64 ? launch<64, true>(context, p, spans, tiles) : launch<128, true>(context, p, spans, tiles);
}

}  // namespace msa::cuda
