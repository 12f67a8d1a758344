// The scan: a persistent block a multiprocessor streams tiles of keys through a ring in shared memory. Eight warps keep
// the queries in registers and share a tile: groups of 16 keys, and where a key is long, several warps to a group that
// each multiply a part of it. The parts are summed in a fixed order, the largest over the queries is taken, and the
// largest over the chunks of a document is an atomic maximum, which no order can change.
#pragma once
#include <cuda_bf16.h>

#include "ops/routing_device.cuh"
#include "ops/routing_quantise.h"

namespace msa {

constexpr int kScanWarps = 8;  // and one more, which fetches
constexpr int kScanThreads = kScanWarps * 32;
constexpr int kBlockThreads = kScanThreads + 128;  // the fetching warp brings three idle ones: see share_registers
constexpr int kGroupKeys = 16;
constexpr int kStepBytes = 32;  // of a key, for one product
constexpr int kMaxSteps = 8;    // of one warp
constexpr int kTileQueries = 8;
constexpr int kMaxTiles = 8;  // of queries: more queries than 64 take several scans
constexpr int kMaxStages = 16;
constexpr int kPartialRows = kScanWarps * kGroupKeys;
constexpr int kRowsPerLane = kPartialRows / 32;  // of the fetching warp

/// Chunks rows [count], in this order; no rows: 0, 1, … No count: `all` of them.
struct ChunkList {
  const int32_t* rows = nullptr;
  const int32_t* count = nullptr;  // [1]
  int32_t all = 0;
};

struct ScanParams {
  const char* keys = nullptr;                  // [n_chunks, row_bytes]
  const char* queries = nullptr;               // [m, query_bytes]: F32 [n], or quantised to int8
  const int32_t* document_of_chunk = nullptr;  // [n_chunks]
  uint32_t* document_orders = nullptr;         // [n_documents] score_order of the best score; of bounds: the lower
  uint32_t* upper_orders = nullptr;            // [chunks of the list] of the upper bound
  uint32_t* lower_orders = nullptr;            // the same of the lower bound; null: not wanted
  ChunkList list;
  ChunkList overflow_list;  // scanned instead where *list.count > overflow
  int32_t overflow = 0;     // 0: no overflow list
  int n = 0;
  int64_t query_bytes = 0;
  float slack = 0;     // accumulation_slack(n)
  int m = 0;           // <= kTileQueries * the kernel's tiles
  bool again = false;  // the bounds of earlier queries are there already
  int row_bytes = 0;   // of a key, a multiple of 16
  int stride = 0;      // of a key in shared memory: an odd multiple of 16 B, so no bank conflicts
  int steps = 0;       // of a key
  int parts = 0;       // warps that share a group: 1, 2, 4, 8
  int stages = 0;      // of the ring
};

/// Offsets into shared memory.
struct ScanLayout {
  int documents, constants, partials, ring, stage_bytes, tile_keys;

  /// Floats between rows of partial sums: 8 modulo 32, so that a half warp's 8-byte stores meet no bank twice.
  static __host__ __device__ constexpr int partial_stride(int tiles) {
    return tiles * kTileQueries + (tiles == 1 ? 0 : 8);
  }

  __host__ __device__ ScanLayout(const ScanParams& p, int tiles) {
    tile_keys = kPartialRows / p.parts;
    stage_bytes = tile_keys * p.stride;
    documents = 2 * kMaxStages * 8;  // after the barriers
    constants = documents + kMaxStages * kPartialRows * 4;
    partials = constants + tiles * kTileQueries * 16;
    ring = partials + 2 * kPartialRows * partial_stride(tiles) * 4;
  }
};

struct Bf16Scan {
  using Sum = float;
  static constexpr bool kBounds = false, kPacked = false;
};
struct Int8Scan {
  using Sum = int32_t;
  static constexpr bool kBounds = true, kPacked = false;
};
struct Int4Scan {  // the queries are int8
  using Sum = int32_t;
  static constexpr bool kBounds = true, kPacked = true;
};

struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void advance(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// What a block works on, the same for all its threads.
struct ScanWork {
  ChunkList list;
  int64_t count;
  int n_tiles;
  char* shared;
  ScanLayout layout;

  __device__ uint32_t full(int stage) const { return shared_address(shared) + static_cast<uint32_t>(stage) * 8; }
  __device__ uint32_t empty(int stage) const { return full(kMaxStages + stage); }
  __device__ int32_t* documents(int stage) const {  // [tile_keys], -1: no chunk
    return reinterpret_cast<int32_t*>(shared + layout.documents) + stage * kPartialRows;
  }
  __device__ const char* keys(int stage) const { return shared + layout.ring + stage * layout.stage_bytes; }
};

#if __CUDA_ARCH__ >= 900
constexpr int kFullArrivals = 32;
#else
constexpr int kFullArrivals = 64;  // every lane's copies, and its documents
#endif

/// Lane l holds the rows l, l + 32, … of a tile; -1: no chunk.
__device__ inline void load_rows(const ScanWork& work, int64_t tile, int32_t (&rows)[kRowsPerLane]) {
#pragma unroll
  for (int i = 0; i < kRowsPerLane; ++i) {
    const int in_tile = static_cast<int>(threadIdx.x % 32) + i * 32;
    const int64_t position = tile * work.layout.tile_keys + in_tile;
    const bool there = in_tile < work.layout.tile_keys && position < work.count;
    rows[i] = !there ? -1 : work.list.rows == nullptr ? static_cast<int32_t>(position) : work.list.rows[position];
  }
}

__device__ inline void load_documents(const ScanParams& p, const int32_t (&rows)[kRowsPerLane],
                                      int32_t (&documents)[kRowsPerLane]) {
#pragma unroll
  for (int i = 0; i < kRowsPerLane; ++i) documents[i] = rows[i] < 0 ? -1 : p.document_of_chunk[rows[i]];
}

/// The whole warp: starts the copies of a tile, which then arrive at the stage's full barrier.
__device__ inline void fetch_tile(const ScanParams& p, const ScanWork& work, int64_t tile, int stage,
                                  const int32_t (&rows)[kRowsPerLane]) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const uint32_t to = shared_address(work.keys(stage)), barrier = work.full(stage);
#if __CUDA_ARCH__ >= 900
  const int64_t left = work.count - tile * work.layout.tile_keys;
  const uint32_t there = static_cast<uint32_t>(left < work.layout.tile_keys ? left : work.layout.tile_keys);
  const uint32_t bytes = static_cast<uint32_t>(p.row_bytes);
  if (lane == 0) {
    barrier_arrive_expect(barrier, there * bytes);
  } else {
    barrier_arrive(barrier);
  }
  __syncwarp();
  if (work.list.rows == nullptr && p.stride == p.row_bytes) {
    if (lane == 0) bulk_copy(to, p.keys + static_cast<int64_t>(rows[0]) * bytes, there * bytes, barrier);
    return;
  }
#pragma unroll
  for (int i = 0; i < kRowsPerLane; ++i) {
    if (rows[i] < 0) continue;
    bulk_copy(to + static_cast<uint32_t>((lane + i * 32) * p.stride), p.keys + static_cast<int64_t>(rows[i]) * bytes,
              bytes, barrier);
  }
#else
#pragma unroll
  for (int i = 0; i < kRowsPerLane; ++i) {
    for (int from = 0; from < 32; ++from) {
      const int32_t row = __shfl_sync(0xffffffffu, rows[i], from);
      if (row < 0) break;  // the rows that are there come first
      const char* const key = p.keys + static_cast<int64_t>(row) * p.row_bytes;
      const uint32_t slot = to + static_cast<uint32_t>((from + i * 32) * p.stride);
      for (int at = lane * 16; at < p.row_bytes; at += 32 * 16) copy_16_bytes(slot + at, key + at);
    }
  }
  barrier_arrive_after_copies(barrier);
  barrier_arrive(barrier);
#endif
}

/// The fetching warp. Rows are read two tiles ahead and their documents one, so that no tile waits for either.
__device__ inline void fetch_tiles(const ScanParams& p, const ScanWork& work) {
  int32_t rows[kRowsPerLane], next_rows[kRowsPerLane], later_rows[kRowsPerLane];
  int32_t documents[kRowsPerLane], next_documents[kRowsPerLane];
  const int step = static_cast<int>(gridDim.x);
  load_rows(work, blockIdx.x, rows);
  load_rows(work, blockIdx.x + static_cast<int64_t>(step), next_rows);
  load_documents(p, rows, documents);
  RingPosition at;
  for (int64_t tile = blockIdx.x; tile < work.n_tiles; tile += step, at.advance(p.stages)) {
    load_documents(p, next_rows, next_documents);
    load_rows(work, tile + 2 * static_cast<int64_t>(step), later_rows);
    barrier_wait(work.empty(at.stage), at.parity ^ 1);
#pragma unroll
    for (int i = 0; i < kRowsPerLane; ++i) {
      const int in_tile = static_cast<int>(threadIdx.x % 32) + i * 32;
      if (in_tile < work.layout.tile_keys) work.documents(at.stage)[in_tile] = documents[i];
    }
    __syncwarp();
    fetch_tile(p, work, tile, at.stage, rows);
#pragma unroll
    for (int i = 0; i < kRowsPerLane; ++i) {
      rows[i] = next_rows[i];
      next_rows[i] = later_rows[i];
      documents[i] = next_documents[i];
    }
  }
}

/// Bytes [at, at + 4) of a query, counted as the bytes of a key of its type.
template <class Scan>
__device__ inline uint32_t query_word(const ScanParams& p, int query, int at) {
  if constexpr (Scan::kBounds) {
    return *reinterpret_cast<const uint32_t*>(p.queries + query * p.query_bytes + at);
  } else {
    const float* const row = reinterpret_cast<const float*>(p.queries) + static_cast<int64_t>(query) * p.n;
    const float2 pair = *reinterpret_cast<const float2*>(row + at / 2);
    const __nv_bfloat162 rounded = __floats2bfloat162_rn(pair.x, pair.y);
    return *reinterpret_cast<const uint32_t*>(&rounded);
  }
}

template <int kTiles>
using QueryFragments = uint32_t[kMaxSteps][kTiles][2];

/// Rows past m repeat the last query, which changes no maximum.
template <class Scan, int kTiles>
__device__ inline void load_queries(const ScanParams& p, int first_step, int steps, QueryFragments<kTiles>& out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int s = 0; s < kMaxSteps; ++s) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const int query = min(t * kTileQueries + lane / 4, p.m - 1);
      const int at = (first_step + s) * kStepBytes + lane % 4 * 4;
      out[s][t][0] = s < steps ? query_word<Scan>(p, query, at) : 0;
      out[s][t][1] = s < steps ? query_word<Scan>(p, query, at + 16) : 0;
    }
  }
}

/// sums += the product of kSteps steps of 16 keys, whose first lies at `address` (of this lane), with all queries.
/// Packed: 32 bytes of a key are two steps.
template <class Scan, int kTiles, int kSteps>
__device__ inline void multiply_steps(uint32_t address, const QueryFragments<kTiles>& queries,
                                      typename Scan::Sum (&sums)[kTiles][4]) {
  constexpr int kStepsALoad = Scan::kPacked ? 2 : 1;
#pragma unroll
  for (int s = 0; s < kSteps; s += kStepsALoad) {
    uint32_t keys[4];
    load_matrices(keys, address + static_cast<uint32_t>(s / kStepsALoad * kStepBytes));
    if constexpr (Scan::kPacked) {
      uint32_t low[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        low[i] = keys[i] << 4 & 0xf0f0f0f0u;
        keys[i] &= 0xf0f0f0f0u;
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t) multiply_add(sums[t], low, queries[s][t]);
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) multiply_add(sums[t], keys, queries[s + kStepsALoad - 1][t]);
  }
}

template <class Scan, int kTiles>
__device__ inline void multiply(int steps, uint32_t address, const QueryFragments<kTiles>& queries,
                                typename Scan::Sum (&sums)[kTiles][4]) {
  switch (steps) {
    case 8: return multiply_steps<Scan, kTiles, 8>(address, queries, sums);
    case 6: return multiply_steps<Scan, kTiles, 6>(address, queries, sums);
    case 4: return multiply_steps<Scan, kTiles, 4>(address, queries, sums);
    case 2: return multiply_steps<Scan, kTiles, 2>(address, queries, sums);
    default: break;
  }
  if constexpr (!Scan::kPacked) {
    switch (steps) {
      case 7: return multiply_steps<Scan, kTiles, 7>(address, queries, sums);
      case 5: return multiply_steps<Scan, kTiles, 5>(address, queries, sums);
      case 3: return multiply_steps<Scan, kTiles, 3>(address, queries, sums);
      case 1: return multiply_steps<Scan, kTiles, 1>(address, queries, sums);
      default: break;
    }
  }
}

/// The key whose score a thread takes part in; 2 * parts neighbouring threads have the same.
struct KeyAtHand {
  int in_tile;
  int document;  // -1: none
  int64_t position;
  KeyCertificate certificate;  // with bounds only
};

struct alignas(16) QueryConstants {  // of the bounds
  float scale, quantised_norm, error, unused;
};

/// Takes in the score of the key with one query, or its bounds.
template <class Scan>
struct Best {
  float lower = -INFINITY;  // bf16: the score itself
  float upper = -INFINITY;

  __device__ void take(typename Scan::Sum sum, const KeyCertificate& key, const QueryConstants* query) {
    if constexpr (Scan::kBounds) {
      const float middle = static_cast<float>(sum) * query->scale * key.scale;
      const float radius = query->quantised_norm * key.error + query->error * key.norm + kUnderflowSlack;
      const bool known = radius < INFINITY;
      lower = fmaxf(lower, known ? middle - radius : -INFINITY);
      upper = fmaxf(upper, known ? middle + radius : INFINITY);
    } else {
      lower = fmaxf(lower, sum);  // the number, where one of the two is NaN
    }
  }

  __device__ void merge(int offset) {
    lower = fmaxf(lower, __shfl_xor_sync(0xffffffffu, lower, offset));
    if constexpr (Scan::kBounds) upper = fmaxf(upper, __shfl_xor_sync(0xffffffffu, upper, offset));
  }
};

template <class Scan>
__device__ inline void write_key(const ScanParams& p, const KeyAtHand& key, const Best<Scan>& best) {
  if (key.document < 0) return;
  const uint32_t order = score_order(best.lower);
  if (order != 0) atomicMax(p.document_orders + key.document, order);
  if constexpr (Scan::kBounds) {
    const uint32_t upper = score_order(best.upper);
    p.upper_orders[key.position] = p.again ? max(upper, p.upper_orders[key.position]) : upper;
    if (p.lower_orders != nullptr) {
      p.lower_orders[key.position] = p.again ? max(order, p.lower_orders[key.position]) : order;
    }
  }
}

/// partials [parts, tile_keys, partial_stride]: sums them over the parts, and takes the best over the queries.
template <class Scan, int kTiles, int kParts>
__device__ inline void reduce_key(const ScanParams& p, const typename Scan::Sum* partials,
                                  const QueryConstants* constants, const KeyAtHand& key) {
  using Sum = typename Scan::Sum;
  struct alignas(8) Pair {
    Sum x, y;
  };
  constexpr int kStride = ScanLayout::partial_stride(kTiles);
  constexpr int kTileKeys = kPartialRows / kParts, kThreadsPerKey = 2 * kParts;
  Best<Scan> best;
  for (int q = static_cast<int>(threadIdx.x) % kThreadsPerKey * 2; q < kTiles * kTileQueries; q += kThreadsPerKey * 2) {
    const Sum* const first = partials + key.in_tile * kStride + q;
    Pair sum = *reinterpret_cast<const Pair*>(first);
#pragma unroll
    for (int part = 1; part < kParts; ++part) {
      const Pair more = *reinterpret_cast<const Pair*>(first + part * kTileKeys * kStride);
      sum.x += more.x;
      sum.y += more.y;
    }
    best.take(sum.x, key.certificate, constants + q);
    best.take(sum.y, key.certificate, constants + q + 1);
  }
#pragma unroll
  for (int offset = kThreadsPerKey / 2; offset > 0; offset /= 2) best.merge(offset);
  if (threadIdx.x % kThreadsPerKey == 0) write_key(p, key, best);
}

template <class Scan, int kTiles>
__device__ inline void reduce_tile(const ScanParams& p, const typename Scan::Sum* partials,
                                   const QueryConstants* constants, const KeyAtHand& key) {
  switch (p.parts) {
    case 8: return reduce_key<Scan, kTiles, 8>(p, partials, constants, key);
    case 4: return reduce_key<Scan, kTiles, 4>(p, partials, constants, key);
    case 2: return reduce_key<Scan, kTiles, 2>(p, partials, constants, key);
    default: return reduce_key<Scan, kTiles, 1>(p, partials, constants, key);
  }
}

template <class Scan>
__device__ inline KeyAtHand key_at_hand(const ScanParams& p, const ScanWork& work, int64_t tile, int stage) {
  KeyAtHand key;
  key.in_tile = static_cast<int>(threadIdx.x) / (2 * p.parts);
  key.document = work.documents(stage)[key.in_tile];
  key.position = tile * work.layout.tile_keys + key.in_tile;
  if constexpr (Scan::kBounds) {
    key.certificate = *reinterpret_cast<const KeyCertificate*>(work.keys(stage) + key.in_tile * p.stride + p.row_bytes -
                                                               static_cast<int>(sizeof(KeyCertificate)));
  }
  return key;
}

/// The multiplying warps.
template <class Scan, int kTiles>
__device__ inline void score_tiles(const ScanParams& p, const ScanWork& work) {
  using Sum = typename Scan::Sum;
  constexpr int kStride = ScanLayout::partial_stride(kTiles);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int group = warp / p.parts, part = warp % p.parts;
  int steps_a_part = (p.steps + p.parts - 1) / p.parts;
  if constexpr (Scan::kPacked) steps_a_part += steps_a_part % 2;
  const int first_step = part * steps_a_part;
  const int steps = max(0, min(steps_a_part, p.steps - first_step));
  QueryFragments<kTiles> queries;
  load_queries<Scan, kTiles>(p, first_step, steps, queries);
  const int from =
      (group * kGroupKeys + lane % 16) * p.stride + first_step * kStepBytes / (Scan::kPacked ? 2 : 1) + lane / 16 * 16;
  const int to = (part * work.layout.tile_keys + group * kGroupKeys + lane / 4) * kStride + lane % 4 * 2;
  const auto* const constants = reinterpret_cast<const QueryConstants*>(work.shared + work.layout.constants);
  Sum* partials = reinterpret_cast<Sum*>(work.shared + work.layout.partials);
  Sum* other_partials = partials + kPartialRows * kStride;
  RingPosition at;
  for (int64_t tile = blockIdx.x; tile < work.n_tiles; tile += gridDim.x, at.advance(p.stages)) {
    Sum sums[kTiles][4] = {};
    barrier_wait(work.full(at.stage), at.parity);
    const KeyAtHand key = key_at_hand<Scan>(p, work, tile, at.stage);
    multiply<Scan, kTiles>(steps, shared_address(work.keys(at.stage)) + static_cast<uint32_t>(from), queries, sums);
    barrier_arrive(work.empty(at.stage));
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      Sum* const row = partials + to + t * kTileQueries;
      row[0] = sums[t][0], row[1] = sums[t][1];
      row[8 * kStride] = sums[t][2], row[8 * kStride + 1] = sums[t][3];
    }
    // Only the warps of this group, which write and read its partials: groups need not go in step. One barrier a tile
    // is enough: who writes these partials again, two tiles on, has passed the next barrier, and so has everyone who
    // reads them now.
    asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "r"(32 * p.parts) : "memory");
    reduce_tile<Scan, kTiles>(p, partials, constants, key);
    Sum* const swapped = partials;
    partials = other_partials;
    other_partials = swapped;
  }
}

/// Four warps at a time may hand registers to others: with 64 queries the multiplying warps need more than the 168 that
/// twelve equal warps would have.
template <int kRegisters, bool kTakes>
__device__ inline void share_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if constexpr (kTakes) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
  }
#endif
}

template <class Scan, int kTiles>
__global__ void __launch_bounds__(kBlockThreads, 1) scan_kernel(const __grid_constant__ ScanParams p) {
  extern __shared__ __align__(128) char shared[];
  const bool overflow = p.overflow != 0 && *p.list.count > p.overflow;
  const ChunkList list = overflow ? p.overflow_list : p.list;
  const ScanLayout layout(p, kTiles);
  const int64_t count = list.count == nullptr ? list.all : *list.count;
  const int n_tiles = static_cast<int>((count + layout.tile_keys - 1) / layout.tile_keys);
  const ScanWork work{list, count, n_tiles, shared, layout};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < p.stages; ++stage) {
      barrier_init(work.full(stage), kFullArrivals);
      barrier_init(work.empty(stage), kScanThreads);
    }
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");  // the copies see the barriers
#endif
  }
  if constexpr (Scan::kBounds) {
    if (threadIdx.x < kTiles * kTileQueries) {
      const int query = min(static_cast<int>(threadIdx.x), p.m - 1);
      const char* const row = p.queries + query * p.query_bytes;
      const KeyCertificate q = *reinterpret_cast<const KeyCertificate*>(row + p.n);
      reinterpret_cast<QueryConstants*>(shared + layout.constants)[threadIdx.x] = {q.scale, q.quantised_norm,
                                                                                   q.error + p.slack * q.norm, 0};
    }
  }
  __syncthreads();
  if (threadIdx.x >= kScanThreads) {
    if constexpr (kTiles == kMaxTiles) share_registers<56, false>();
    if (threadIdx.x < kScanThreads + 32) fetch_tiles(p, work);
  } else {
    if constexpr (kTiles == kMaxTiles) share_registers<224, true>();
    score_tiles<Scan, kTiles>(p, work);
  }
}

using ScanKernel = void (*)(ScanParams);
/// The kernel for `tiles` = 1, 2, 4, 8 tiles of queries. In files of their own, to be compiled side by side.
ScanKernel bf16_scan_kernel(int tiles);
ScanKernel int8_scan_kernel(int tiles);
ScanKernel int4_scan_kernel(int tiles);

template <class Scan>
ScanKernel scan_kernel_of(int tiles) {
  switch (tiles) {
    case 1: return scan_kernel<Scan, 1>;
    case 2: return scan_kernel<Scan, 2>;
    case 4: return scan_kernel<Scan, 4>;
    case 8: return scan_kernel<Scan, 8>;
    default: MSA_CHECK(false); return nullptr;
  }
}

}  // namespace msa
