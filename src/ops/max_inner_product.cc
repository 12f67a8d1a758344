#include "ops/max_inner_product.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/max_inner_product.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "ops/check.h"
#include "ops/gemm-inl.h"

#ifndef MSA_OPS_MAX_INNER_PRODUCT_ONCE
#define MSA_OPS_MAX_INNER_PRODUCT_ONCE
namespace msa {

constexpr size_t kKeyBlock = 96;     // keys of one cache tile; a multiple of every kTileRows
constexpr size_t kMostColumns = 32;  // panel_columns() of the widest instruction set

struct ScanQueries {
  const float* panels;  // [panels, n, panel_columns()], the last panel filled up with copies of the last query
  size_t panel_count;
  size_t n;
};

}  // namespace msa
#endif  // MSA_OPS_MAX_INNER_PRODUCT_ONCE

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

/// Writes the panels of ScanQueries; returns their number.
size_t pack_scan_queries(const Tensor& queries, float* panels) {
  const size_t m = static_cast<size_t>(queries.rows()), n = static_cast<size_t>(queries.dim(1));
  const size_t count = (m + panel_columns() - 1) / panel_columns();
  for (size_t column = 0; column < count * panel_columns(); ++column) {
    const float* q = queries.row<float>(static_cast<int64_t>(std::min(column, m - 1)));
    float* to = panels + column / panel_columns() * n * panel_columns() + column % panel_columns();
    for (size_t i = 0; i < n; ++i) to[i * panel_columns()] = q[i];
  }
  return count;
}

/// keys [kRows, n], maxima [kRows] vectors: the largest product so far, lane by lane.
template <int kRows>
HWY_INLINE void scan_tile(const float* keys, size_t n, const float* panel, bool first, float* maxima) {
  const FloatTag d;
  FloatVec sums[kRows][2];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = hn::Zero(d);
  tile_product<kRows, false>(keys, n, panel, n, sums);
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    float* maximum = maxima + static_cast<size_t>(r) * hn::Lanes(d);
    const FloatVec larger = hn::Max(sums[r][0], sums[r][1]);
    hn::StoreU(first ? larger : hn::Max(larger, hn::LoadU(d, maximum)), d, maximum);
  }
}

/// Scores keys [begin, end). Every key goes through the same operations wherever it lies.
void scan_keys(const ScanQueries& queries, const Tensor& keys, const Tensor& out, int64_t begin, int64_t end,
               float* block) {
  const FloatTag d;
  const size_t n = queries.n;
  float* maxima = block + kKeyBlock * n;
  for (int64_t at = begin; at < end; at += kKeyBlock) {
    const size_t rows = static_cast<size_t>(std::min<int64_t>(kKeyBlock, end - at));
    for (size_t r = 0; r < rows; ++r) {
      float* to = block + r * n;
      const auto convert = [&](const auto* from) HWY_ATTR {
        for_each_vector(n, [&](auto dv, size_t i) HWY_ATTR { hn::StoreU(load_float(dv, from + i), dv, to + i); });
      };
      const int64_t key = at + static_cast<int64_t>(r);
      keys.dtype == DType::kF32 ? convert(keys.row<float>(key)) : convert(keys.row<bf16>(key));
    }
    for (size_t p = 0; p < queries.panel_count; ++p) {
      const float* panel = queries.panels + p * n * panel_columns();
      size_t r = 0;
      for (; r + kTileRows <= rows; r += kTileRows) {
        scan_tile<kTileRows>(block + r * n, n, panel, p == 0, maxima + r * hn::Lanes(d));
      }
      for (; r < rows; ++r) scan_tile<1>(block + r * n, n, panel, p == 0, maxima + r * hn::Lanes(d));
    }
    for (size_t r = 0; r < rows; ++r) {
      const FloatVec maximum = hn::LoadU(d, maxima + r * hn::Lanes(d));
      *out.row<float>(at + static_cast<int64_t>(r)) = hn::GetLane(hn::MaxOfLanes(d, maximum));
    }
  }
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa {

HWY_EXPORT(pack_scan_queries);
HWY_EXPORT(scan_keys);

void max_inner_product(Context& context, const Tensor& queries, const Tensor& keys, const Tensor& out) {
  MSA_CHECK(queries.rank == 2 && is_f32(queries) && queries.rows() >= 1);
  MSA_CHECK(keys.rank == 2 && is_f32_or_bf16(keys) && keys.dim(1) == queries.dim(1));
  MSA_CHECK(out.rank == 1 && is_f32(out) && out.rows() == keys.rows());
  const size_t n = static_cast<size_t>(keys.dim(1)), m = static_cast<size_t>(queries.rows());
  context.scratch[0].reserve((m + kMostColumns) * n * sizeof(float));
  float* panels = static_cast<float*>(context.scratch[0].data());
  const ScanQueries packed{panels, HWY_DYNAMIC_DISPATCH(pack_scan_queries)(queries, panels), n};
  const size_t block = kKeyBlock * (n + kMostColumns / 2);
  context.scratch[1].reserve(block * sizeof(float) * static_cast<size_t>(context.pool.threads()));
  float* blocks = static_cast<float*>(context.scratch[1].data());
  context.pool.parallel_for(keys.rows(), kKeyBlock, [&](int64_t begin, int64_t end, int worker) {
    HWY_DYNAMIC_DISPATCH(scan_keys)(packed, keys, out, begin, end, blocks + static_cast<size_t>(worker) * block);
  });
}

}  // namespace msa
#endif  // HWY_ONCE
