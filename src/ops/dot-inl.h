// Inner products of a few vectors with keys that lie in memory as they are: for work bound by reading the keys.
#if defined(MSA_OPS_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_OPS_DOT_INL_H_
#undef MSA_OPS_DOT_INL_H_
#else
#define MSA_OPS_DOT_INL_H_
#endif

#include <algorithm>

#include "ops/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

constexpr size_t kKeysAtOnce = 4;
// Accumulators for kKeysAtOnce keys each: 16 of 32 registers, or 8 of 16.
constexpr int kQueriesAtOnce = kTileRows == 12 ? 4 : 2;

/// Elements of a query in the order of load_split, zeros behind it.
HWY_INLINE size_t split_length(size_t n) { return (n + panel_columns() - 1) / panel_columns() * panel_columns(); }

/// panel_columns() elements as two vectors: bf16 as its even and its odd elements, which needs no shuffle.
HWY_INLINE void load_split(const float* p, FloatVec& first, FloatVec& second) {
  const FloatTag d;
  first = hn::LoadU(d, p);
  second = hn::LoadU(d, p + hn::Lanes(d));
}

HWY_INLINE void load_split(const bf16* p, FloatVec& first, FloatVec& second) {
  const FloatTag d;
  const hn::Rebind<uint32_t, FloatTag> d32;
  const auto pairs = hn::LoadU(d32, reinterpret_cast<const uint32_t*>(p));
  first = hn::BitCast(d, hn::ShiftLeft<16>(pairs));
  second = hn::BitCast(d, hn::And(pairs, hn::Set(d32, 0xffff0000u)));
}

/// to [split_length(n)] = from [n] · scale, in the order in which load_split gives the elements of a Key.
template <class Key, class In>
HWY_INLINE void split_query(const In* from, size_t n, float scale, float* to) {
  const size_t half = panel_columns() / 2;
  std::fill_n(to, split_length(n), 0.0f);
  for (size_t i = 0; i < n; ++i) {
    const size_t in_block = i % panel_columns(), block = i - in_block;
    const bool pairs = sizeof(Key) == 2;
    to[block + (pairs ? in_block % 2 * half + in_block / 2 : in_block)] = to_float(from[i]) * scale;
  }
}

#if HWY_TARGET != HWY_SCALAR
/// Folds the blocks of 128 bits into one.
template <class D>
HWY_INLINE auto add_blocks([[maybe_unused]] D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return add_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}
#endif

/// The sums of four vectors, side by side.
HWY_INLINE void store_4_sums(const FloatVec (&v)[4], float* to) {
#if HWY_TARGET == HWY_SCALAR
  for (size_t i = 0; i < 4; ++i) to[i] = hn::GetLane(v[i]);
#else
  const FloatTag d;
  const hn::Repartition<uint64_t, FloatTag> d64;
  const auto fold = [&](FloatVec a, FloatVec b) HWY_ATTR {
    return hn::BitCast(d64, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  };
  const auto v01 = fold(v[0], v[1]), v23 = fold(v[2], v[3]);
  const auto blocks =
      hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, v01, v23)), hn::BitCast(d, hn::InterleaveUpper(d64, v01, v23)));
  hn::StoreU(add_blocks(d, blocks), hn::FixedTag<float, 4>(), to);
#endif
}

/// Floats of a query for dot_4_keys: split_length(n), or (Pairs) as many bf16 in their own order.
template <bool kPairs>
HWY_INLINE size_t query_floats(size_t n) {
  return kPairs ? split_length(n) / 2 : split_length(n);
}

/// queries: kQueries rows of query_floats(n), `keys` of n. to[q * to_stride + j] = ⟨query q, key j⟩ for four keys.
template <int kQueries, bool kPairs, class Key>
HWY_INLINE void dot_4_keys(const float* queries, const Key* const (&keys)[4], size_t n, float* to, size_t to_stride) {
  const FloatTag d;
  const size_t width = panel_columns(), stride = query_floats<kPairs>(n);
  FloatVec sums[kQueries][4];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) sums[q][0] = sums[q][1] = sums[q][2] = sums[q][3] = hn::Zero(d);
  const auto step = [&](const Key* k0, const Key* k1, const Key* k2, const Key* k3, const float* q_at) HWY_ATTR {
    const Key* k[4] = {k0, k1, k2, k3};
    FloatVec a[4], b[4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      if constexpr (kPairs)
        a[j] = hn::LoadU(d, reinterpret_cast<const float*>(k[j]));
      else
        load_split(k[j], a[j], b[j]);
    }
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) {
      const float* row = q_at + static_cast<size_t>(q) * stride;
      const FloatVec q0 = hn::LoadU(d, row), q1 = kPairs ? q0 : hn::LoadU(d, row + hn::Lanes(d));
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; ++j) {
        sums[q][j] = multiply_add<kPairs>(a[j], q0, sums[q][j]);
        if constexpr (!kPairs) sums[q][j] = hn::MulAdd(b[j], q1, sums[q][j]);
      }
    }
  };
  const auto query_at = [&](size_t i) { return queries + (kPairs ? i / 2 : i); };
  size_t i = 0;
  for (; i + width <= n; i += width) step(keys[0] + i, keys[1] + i, keys[2] + i, keys[3] + i, query_at(i));
  if (i < n) {
    Key last[4][2 * hn::MaxLanes(FloatTag())] = {};
    for (size_t j = 0; j < 4; ++j) std::copy(keys[j] + i, keys[j] + n, last[j]);
    step(last[0], last[1], last[2], last[3], query_at(i));
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) store_4_sums(sums[q], to + static_cast<size_t>(q) * to_stride);
}

/// dot_4_keys for any number of queries. A product does not depend on its neighbours.
template <class Key, bool kPairs = false>
HWY_INLINE void dot_4_keys(const float* queries, size_t count, const Key* const (&keys)[4], size_t n, float* to,
                           size_t to_stride) {
  const size_t stride = query_floats<kPairs>(n);
  size_t q = 0;
  for (; q + kQueriesAtOnce <= count; q += kQueriesAtOnce) {
    dot_4_keys<kQueriesAtOnce, kPairs>(queries + q * stride, keys, n, to + q * to_stride, to_stride);
  }
  const float* rest = queries + q * stride;
  float* rest_to = to + q * to_stride;
  if constexpr (kQueriesAtOnce > 2) {
    if (count - q == 3) dot_4_keys<3, kPairs>(rest, keys, n, rest_to, to_stride);
    if (count - q == 2) dot_4_keys<2, kPairs>(rest, keys, n, rest_to, to_stride);
  }
  if (count - q == 1) dot_4_keys<1, kPairs>(rest, keys, n, rest_to, to_stride);
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
