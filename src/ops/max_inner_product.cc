#include "ops/max_inner_product.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/max_inner_product.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "ops/check.h"
#include "ops/dot-inl.h"

#ifndef MSA_OPS_MAX_INNER_PRODUCT_ONCE
#define MSA_OPS_MAX_INNER_PRODUCT_ONCE
namespace msa {

constexpr int64_t kKeyBlock = 32;     // keys that stay in the L1 cache while every query passes over them
constexpr int64_t kMostPadding = 32;  // of a query: panel_columns() of the widest instruction set

}  // namespace msa
#endif  // MSA_OPS_MAX_INNER_PRODUCT_ONCE

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

/// to [M, split_length(n)]: the queries in the order in which keys of this type are read.
void split_queries(const Tensor& queries, DType key_type, float* to) {
  const size_t n = static_cast<size_t>(queries.dim(1));
  for (int64_t m = 0; m < queries.rows(); ++m, to += split_length(n)) {
    key_type == DType::kF32 ? split_query<float>(queries.row<float>(m), n, 1.0f, to)
                            : split_query<bf16>(queries.row<float>(m), n, 1.0f, to);
  }
}

/// Asks for kKeysAtOnce keys: the processor does not foresee rows that are read side by side (1.8x as fast on Zen 4).
template <class Key>
HWY_INLINE void prefetch_keys(const Tensor& keys, int64_t begin, int64_t end) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(Key));
  for (int64_t j = begin; j < std::min<int64_t>(begin + kKeysAtOnce, end); ++j) {
    for (int64_t i = 0; i < keys.dim(1); i += kLine) hwy::Prefetch(keys.row<Key>(j) + i);
  }
}

/// Raises best[i] to the largest product of key begin + i with `count` queries, for the keys of one block.
template <class Key>
HWY_INLINE void scan_block(const float* queries, size_t count, const Tensor& keys, int64_t begin, int64_t end,
                           bool first, float* best) {
  const size_t n = static_cast<size_t>(keys.dim(1));
  float products[kQueriesAtOnce][kKeysAtOnce];
  for (int64_t j = begin; j < end; j += kKeysAtOnce) {
    if (first) prefetch_keys<Key>(keys, j + 2 * kKeysAtOnce, keys.rows());
    const auto key = [&](int64_t i) { return keys.row<Key>(std::min(j + i, end - 1)); };
    dot_4_keys<Key>(queries, count, {key(0), key(1), key(2), key(3)}, n, products[0], kKeysAtOnce);
    for (size_t q = 0; q < count; ++q) {
      for (size_t i = 0; i < kKeysAtOnce; ++i) {
        float& top = best[static_cast<size_t>(j - begin) + i];
        top = std::max(top, products[q][i]);
      }
    }
  }
}

/// Scores keys [begin, end). A product of a query and a key is the same wherever both lie.
template <class Key>
HWY_INLINE void scan(const float* queries, int64_t m, const Tensor& keys, const Tensor& out, int64_t begin,
                     int64_t end) {
  const int64_t stride = static_cast<int64_t>(split_length(static_cast<size_t>(keys.dim(1))));
  for (int64_t at = begin; at < end; at += kKeyBlock) {
    const int64_t block_end = std::min(at + kKeyBlock, end);
    float best[kKeyBlock];
    std::fill_n(best, kKeyBlock, -std::numeric_limits<float>::infinity());
    for (int64_t q = 0; q < m; q += kQueriesAtOnce) {
      const size_t count = static_cast<size_t>(std::min<int64_t>(kQueriesAtOnce, m - q));
      scan_block<Key>(queries + q * stride, count, keys, at, block_end, q == 0, best);
    }
    std::copy_n(best, block_end - at, out.row<float>(at));
  }
}

void scan_keys(const float* queries, int64_t m, const Tensor& keys, const Tensor& out, int64_t begin, int64_t end) {
  keys.dtype == DType::kF32 ? scan<float>(queries, m, keys, out, begin, end)
                            : scan<bf16>(queries, m, keys, out, begin, end);
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa {

HWY_EXPORT(split_queries);
HWY_EXPORT(scan_keys);

void max_inner_product(Context& context, const Tensor& queries, const Tensor& keys, const Tensor& out) {
  MSA_CHECK(queries.rank == 2 && is_f32(queries) && queries.rows() >= 1);
  MSA_CHECK(keys.rank == 2 && is_f32_or_bf16(keys) && keys.dim(1) == queries.dim(1));
  MSA_CHECK(out.rank == 1 && is_f32(out) && out.is_dense() && out.rows() == keys.rows());
  const int64_t m = queries.rows();
  context.scratch[0].reserve(static_cast<size_t>(m * (keys.dim(1) + kMostPadding)) * sizeof(float));
  float* split = static_cast<float*>(context.scratch[0].data());
  HWY_DYNAMIC_DISPATCH(split_queries)(queries, keys.dtype, split);
  context.pool.parallel_for(keys.rows(), kKeyBlock, [&](int64_t begin, int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(scan_keys)(split, m, keys, out, begin, end);
  });
}

}  // namespace msa
#endif  // HWY_ONCE
