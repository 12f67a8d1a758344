// Many queries are packed side by side in the lanes and the keys read as they lie, each element broadcast: no key is
// moved, and no sum crosses lanes. Few queries would leave lanes idle: there the lanes run along the keys.
#include "ops/max_inner_product.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/max_inner_product.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "core/cpu.h"
#include "ops/check.h"
#include "ops/cuda_ops.h"
#include "ops/dot-inl.h"
#include "ops/pack-inl.h"

#ifndef MSA_OPS_MAX_INNER_PRODUCT_ONCE
#define MSA_OPS_MAX_INNER_PRODUCT_ONCE
namespace msa {

constexpr int64_t kKeyBlock = 48;  // keys of the smallest piece of work
constexpr size_t kFewQueries = 4;  // up to which the lanes run along the keys
constexpr size_t kMostLanes = 16;  // of the widest instruction set
constexpr size_t kMostTileRows = 12;
constexpr size_t kLineFloats = 16;  // of a cache line

struct KeyScan {
  Tensor keys;     // F32|BF16 [N, n]
  Tensor out;      // F32 [N]
  bool pairs;      // products of bf16 pairs
  size_t m;        // queries
  float* queries;  // few: [m, query_floats(n)]; many: [ceil(m / lanes), steps(), lanes]
  float* tiles;    // [workers, kMostTileRows, row_floats()]

  bool few() const { return m <= kFewQueries; }
  size_t n() const { return static_cast<size_t>(keys.dim(1)); }
  size_t steps() const { return pairs ? (n() + 1) / 2 : n(); }
  /// Between rows of a tile: not a multiple of 4 KiB, or they would drive each other out of the L1 cache.
  size_t row_floats() const { return (steps() / kLineFloats | 1) * kLineFloats + 2 * kLineFloats; }
  size_t tile_floats() const { return kMostTileRows * row_floats(); }
};

}  // namespace msa
#endif  // MSA_OPS_MAX_INNER_PRODUCT_ONCE

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

/// Asks for kKeysAtOnce keys: the processor does not foresee rows that are read side by side (1.8x as fast on Zen 4;
/// into the L2 cache, 1.2x as fast again as into the L1).
HWY_INLINE void prefetch_keys(const Tensor& keys, int64_t begin) {
  const int64_t end = std::min<int64_t>(begin + kKeysAtOnce, keys.rows()), bytes = keys.dense_row_bytes();
  for (int64_t j = begin; j < end; ++j) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(keys.row<char>(j) + i, 0, 2);
  }
}

/// Scores keys [begin, end) with up to kFewQueries queries.
template <bool kPairs, class Key>
HWY_INLINE void scan_with_few(const KeyScan& scan, int64_t begin, int64_t end) {
  const Tensor keys = scan.keys;
  const size_t m = scan.m, n = scan.n();
  float* out = scan.out.as<float>();
  float products[kFewQueries][kKeysAtOnce];
  for (int64_t at = begin; at < end; at += kKeysAtOnce) {
    prefetch_keys(keys, at + 2 * static_cast<int64_t>(kKeysAtOnce));
    const auto key = [&](int64_t i) { return keys.row<Key>(std::min(at + i, end - 1)); };
    dot_4_keys<Key, kPairs>(scan.queries, m, {key(0), key(1), key(2), key(3)}, n, products[0], kKeysAtOnce);
    float best[kKeysAtOnce];
    std::fill_n(best, kKeysAtOnce, -std::numeric_limits<float>::infinity());
    for (size_t q = 0; q < m; ++q) {
      for (size_t j = 0; j < kKeysAtOnce; ++j) best[j] = std::max(best[j], products[q][j]);
    }
    std::copy_n(best, std::min<int64_t>(kKeysAtOnce, end - at), out + at);
  }
}

struct KeyTile {
  const float* keys;
  size_t stride;     // steps between keys
  const char* next;  // keys to be asked for meanwhile; null = none
  int64_t next_row_bytes;
};

/// best[key] = max(best[key], ⟨key, query⟩) lane by lane, for kVectors vectors of queries.
template <int kKeys, int kVectors, bool kPairs, class Key>
HWY_INLINE void multiply_tile(const KeyTile& tile, const float* queries, size_t steps, float* best) {
  const FloatTag d;
  const size_t lanes = hn::Lanes(d);
  constexpr size_t kStepBytes = sizeof(Key) * (kPairs ? 2 : 1);
  FloatVec sums[kKeys][kVectors];
#pragma GCC unroll 12
  for (int j = 0; j < kKeys; ++j) {
    for (int v = 0; v < kVectors; ++v) sums[j][v] = hn::Zero(d);
  }
  for (size_t k = 0; k < steps; ++k) {
    if (tile.next != nullptr && k % kLineFloats == 0) {
      // Into the L2 cache, as the tile at hand needs the L1: 1.3x as fast on Zen 4.
#pragma GCC unroll 12
      for (int j = 0; j < kKeys; ++j) __builtin_prefetch(tile.next + j * tile.next_row_bytes + k * kStepBytes, 0, 2);
    }
    FloatVec q[kVectors];
    for (int v = 0; v < kVectors; ++v) q[v] = hn::LoadU(d, queries + (static_cast<size_t>(v) * steps + k) * lanes);
#pragma GCC unroll 12
    for (size_t j = 0; j < kKeys; ++j) {
      const FloatVec key = hn::Set(d, tile.keys[j * tile.stride + k]);
      for (int v = 0; v < kVectors; ++v) sums[j][v] = multiply_add<kPairs>(key, q[v], sums[j][v]);
    }
  }
#pragma GCC unroll 12
  for (size_t j = 0; j < kKeys; ++j) {
    float* top = best + j * lanes;  // the second operand: Max gives it where the first is NaN
    for (int v = 0; v < kVectors; ++v) hn::StoreU(hn::Max(sums[j][v], hn::LoadU(d, top)), d, top);
  }
}

template <int kKeys, bool kPairs, class Key>
HWY_INLINE void score_tile(const KeyScan& scan, KeyTile tile, float* out) {
  const FloatTag d;
  const size_t lanes = hn::Lanes(d), steps = scan.steps();
  HWY_ALIGN float best[kKeys * kMostLanes];
  std::fill_n(best, kKeys * lanes, -std::numeric_limits<float>::infinity());
  const float* queries = scan.queries;
  size_t left = (scan.m + lanes - 1) / lanes;
  for (; left >= 2; left -= 2, queries += 2 * steps * lanes, tile.next = nullptr) {
    multiply_tile<kKeys, 2, kPairs, Key>(tile, queries, steps, best);
  }
  if (left == 1) multiply_tile<kKeys, 1, kPairs, Key>(tile, queries, steps, best);
  for (size_t j = 0; j < kKeys; ++j) out[j] = hn::GetLane(hn::MaxOfLanes(d, hn::LoadU(d, best + j * lanes)));
}

/// Whether rows of keys can be read as steps where they lie.
template <bool kPairs, class Key>
HWY_INLINE bool are_steps(const Tensor& keys) {
  if (keys.row_bytes % 4096 == 0) return false;  // see row_floats()
  if (std::is_same_v<Key, float>) return true;
  return kPairs && keys.dim(1) % 2 == 0 && keys.row_bytes % 4 == 0 && reinterpret_cast<uintptr_t>(keys.data) % 4 == 0;
}

/// Keys [at, at + kKeys), in `memory` where they cannot be read as they lie.
template <int kKeys, bool kPairs, class Key>
HWY_INLINE KeyTile tile_at(const KeyScan& scan, int64_t at, float* memory) {
  const Tensor& keys = scan.keys;
  const char* next = at + 2 * kKeys <= keys.rows() ? keys.row<char>(at + kKeys) : nullptr;
  if (are_steps<kPairs, Key>(keys)) {
    const auto* first = reinterpret_cast<const float*>(keys.row<char>(at));
    return {first, static_cast<size_t>(keys.row_bytes) / sizeof(float), next, keys.row_bytes};
  }
  for (int j = 0; j < kKeys; ++j) {
    float* to = memory + static_cast<size_t>(j) * scan.row_floats();
    pack_steps<kPairs>(keys.row<Key>(at + j), scan.n(), 1.0f, to);
  }
  return {memory, scan.row_floats(), next, keys.row_bytes};
}

/// Scores keys [begin, end) with any number of queries.
template <bool kPairs, class Key>
HWY_INLINE void scan_with_many(const KeyScan& scan, int64_t begin, int64_t end, float* memory) {
  constexpr int kTile = kTileRows;
  int64_t at = begin;
  for (; at + kTile <= end; at += kTile) {
    score_tile<kTile, kPairs, Key>(scan, tile_at<kTile, kPairs, Key>(scan, at, memory), scan.out.row<float>(at));
  }
  for (; at < end; ++at) {
    score_tile<1, kPairs, Key>(scan, tile_at<1, kPairs, Key>(scan, at, memory), scan.out.row<float>(at));
  }
}

template <bool kPairs, class Key>
HWY_INLINE void pack_queries_for(const Tensor& queries, const KeyScan& scan) {
  const size_t n = scan.n(), lanes = hn::Lanes(FloatTag()), steps = scan.steps();
  const auto query = [&](size_t q) { return queries.row<float>(static_cast<int64_t>(q)); };
  for (size_t q = 0; scan.few() && q < scan.m; ++q) {
    float* to = scan.queries + q * query_floats<kPairs>(n);
    std::fill_n(to, query_floats<kPairs>(n), 0.0f);
    kPairs ? pack_steps<kPairs>(query(q), n, 1.0f, to) : split_query<Key>(query(q), n, 1.0f, to);
  }
  for (size_t q = 0; !scan.few() && q < (scan.m + lanes - 1) / lanes * lanes; ++q) {
    pack_steps<kPairs>(query(q < scan.m ? q : 0), n, 1.0f, scan.tiles);  // idle lanes repeat a query: the same maximum
    float* to = scan.queries + q / lanes * lanes * steps + q % lanes;
    for (size_t k = 0; k < steps; ++k) to[k * lanes] = scan.tiles[k];
  }
}

bool has_pairs() { return kHasPairs; }

void pack_queries(const Tensor& queries, const KeyScan& scan) {
  if (scan.keys.dtype == DType::kF32) return pack_queries_for<false, float>(queries, scan);
  if constexpr (kHasPairs) {
    if (scan.pairs) return pack_queries_for<true, bf16>(queries, scan);
  }
  pack_queries_for<false, bf16>(queries, scan);
}

template <bool kPairs, class Key>
HWY_INLINE void scan_with(const KeyScan& scan, int64_t begin, int64_t end, int worker) {
  if (scan.few()) return scan_with_few<kPairs, Key>(scan, begin, end);
  scan_with_many<kPairs, Key>(scan, begin, end, scan.tiles + scan.tile_floats() * static_cast<size_t>(worker));
}

/// A score is the same wherever its key lies.
void scan_keys(const KeyScan& scan, int64_t begin, int64_t end, int worker) {
  if (scan.keys.dtype == DType::kF32) return scan_with<false, float>(scan, begin, end, worker);
  if constexpr (kHasPairs) {
    if (scan.pairs) return scan_with<true, bf16>(scan, begin, end, worker);
  }
  scan_with<false, bf16>(scan, begin, end, worker);
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa {

HWY_EXPORT(has_pairs);
HWY_EXPORT(pack_queries);
HWY_EXPORT(scan_keys);

void max_inner_product(Context& context, const Tensor& queries, const Tensor& keys, const Tensor& out) {
  MSA_CHECK(queries.rank == 2 && is_f32(queries) && queries.rows() >= 1);
  MSA_CHECK(keys.rank == 2 && is_f32_or_bf16(keys) && keys.dim(1) == queries.dim(1));
  MSA_CHECK(out.rank == 1 && is_f32(out) && out.is_dense() && out.rows() == keys.rows());
  if (runs_on_cuda(context, queries, keys, out)) {
    if constexpr (kHasCuda) return max_inner_product_cuda(context, queries, keys, out);
  }
  const bool pairs = keys.dtype == DType::kBF16 && cpu_features().avx512_bf16 && HWY_DYNAMIC_DISPATCH(has_pairs)();
  KeyScan scan{keys, out, pairs, static_cast<size_t>(queries.rows()), nullptr, nullptr};
  const size_t query_room = (scan.m + kMostLanes) * (scan.n() + 2 * kMostLanes);
  const size_t tile_room = scan.tile_floats() * static_cast<size_t>(context.pool.threads());
  context.scratch[0].reserve((query_room + tile_room) * sizeof(float));
  scan.queries = static_cast<float*>(context.scratch[0].data());
  scan.tiles = scan.queries + query_room;
  HWY_DYNAMIC_DISPATCH(pack_queries)(queries, scan);
  context.pool.parallel_for(keys.rows(), kKeyBlock, [&](int64_t begin, int64_t end, int worker) {
    HWY_DYNAMIC_DISPATCH(scan_keys)(scan, begin, end, worker);
  });
}

}  // namespace msa
#endif  // HWY_ONCE
