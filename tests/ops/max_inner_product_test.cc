#include "ops/max_inner_product.h"

#include "op_test.h"

namespace msa {
namespace {

/// Float32 sums of n products of size ~1.
double sum_error(int64_t n) { return 1e-6 * std::sqrt(static_cast<double>(n)); }

/// Queries that rounding to bf16 leaves as they are, so that products with bf16 keys are exact on every processor.
Tensor bf16_values(Draw& draw, int64_t m, int64_t n, int64_t gap = 0) {
  const Tensor q = draw.normal(DType::kF32, {m, n}, 1, gap);
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t i = 0; i < n; ++i) q.row<float>(r)[i] = to_float(to_bf16(q.row<float>(r)[i]));
  }
  return q;
}

class MaxInnerProduct : public DeviceTest {};

void scan(Context& context, const Tensor& q, const Tensor& k, const Tensor& y) {
  OnDevice on(context);
  max_inner_product(context, on.in(q), on.in(k), on.out(y));
}

void expect_reference(Device device, const Tensor& q, const Tensor& k, Draw& draw) {
  const Tensor expected = draw.nan(DType::kF32, {k.rows()});
  reference::max_inner_product(q, k, expected);
  for_each_setting(device, [&](Context& context) {
    const Tensor y = draw.nan(DType::kF32, {k.rows()});
    scan(context, q, k, y);
    expect_near(y, expected, sum_error(k.dim(1)), 1e-5);
  });
}

TEST_P(MaxInnerProduct, EqualsReference) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {1, 24, 25, 192, 1024}) {
      for (const int64_t m : {1, 2, 3, 4, 5, 16, 31, 33, 100}) {
        for (const int64_t keys : {0, 1, 13, 250}) {
          if (n == 1024 && m == 100) continue;  // the reference is slow
          Draw draw(static_cast<uint32_t>(n * 1000 + m));
          const Tensor q = type == DType::kF32 ? draw.normal(type, {m, n}, 1, 3) : bf16_values(draw, m, n, 3);
          // Odd gaps: bf16 rows that do not lie on 32 bits.
          expect_reference(device(), q, draw.normal(type, {keys, n}, 1, keys == 250 ? 4 : 5), draw);
        }
      }
    }
  }
}

/// Rows of 4 KiB, which fall into the same sets of a cache; rows of bf16 at an odd address.
TEST_P(MaxInnerProduct, KeysThatLieBadly) {
  Draw draw(4);
  const Tensor q = bf16_values(draw, 20, 1024);
  expect_reference(device(), q, draw.normal(DType::kF32, {40, 1024}), draw);
  expect_reference(device(), q, draw.normal(DType::kBF16, {40, 1024}, 1, 1024), draw);
  const Tensor wide = draw.normal(DType::kBF16, {40, 1026});
  Tensor odd(wide.as<bf16>() + 1, DType::kBF16, {40, 1024});
  odd.row_bytes = wide.row_bytes;
  expect_reference(device(), q, odd, draw);
}

/// With bf16 keys the queries may be rounded to bf16, but then for any number of them: a key's score is its own.
TEST_P(MaxInnerProduct, RoundsQueriesWhateverTheirNumber) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    Draw draw(17);
    constexpr int64_t n = 192, keys = 100;
    const Tensor q = draw.normal(DType::kF32, {1, n}), k = draw.normal(type, {keys, n});
    const Tensor expected = draw.nan(DType::kF32, {keys});
    reference::max_inner_product(q, k, expected);
    for_each_setting(device(), [&](Context& context) {
      const Tensor alone = draw.nan(DType::kF32, {keys}), y = draw.nan(DType::kF32, {keys});
      scan(context, q, k, alone);
      const double rounding_of_queries = type == DType::kF32 ? 0 : 0x1p-7 * std::sqrt(static_cast<double>(n));
      expect_near(alone, expected, sum_error(n) + rounding_of_queries, 0);
      for (const int64_t m : {2, 4, 5, 16, 17, 40}) {
        const Tensor same = draw.nan(DType::kF32, {m, n});
        for (int64_t r = 0; r < m; ++r) std::copy_n(q.row<float>(0), n, same.row<float>(r));
        scan(context, same, k, y);
        expect_near(y, alone, sum_error(n), 1e-5);
      }
    });
  }
}

TEST_P(MaxInnerProduct, NanNeverWins) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const int64_t m : {3, 40}) {
      Draw draw(static_cast<uint32_t>(m));
      const Tensor q = bf16_values(draw, m, 64), k = draw.normal(type, {30, 64});
      for (const int64_t r : {int64_t{0}, m - 1}) q.row<float>(r)[5] = std::numeric_limits<float>::quiet_NaN();
      const Tensor y = draw.nan(DType::kF32, {30}), expected = draw.nan(DType::kF32, {30});
      reference::max_inner_product(q.slice_rows(1, m - 1), k, expected);
      for_each_setting(device(), [&](Context& context) {
        scan(context, q, k, y);
        expect_near(y, expected, sum_error(64), 1e-5);
      });
    }
  }
}

TEST_P(MaxInnerProduct, ScoreOfAKeyDependsOnTheKeyAlone) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const int64_t m : {1, 2, 40}) {
      Draw draw(static_cast<uint32_t>(m));
      const Tensor q = draw.normal(DType::kF32, {m, 192}), k = draw.normal(type, {1000, 192});
      Tensor all;
      for_each_setting(device(), [&](Context& context) {
        const Tensor again = draw.nan(DType::kF32, {1000});
        scan(context, q, k, again);
        if (context.pool.threads() == 1 || all.empty()) all = again;
        expect_same_bits(again, all);
        for (const int64_t begin : {1, 7, 500, 999}) {
          const Tensor part = draw.nan(DType::kF32, {1000 - begin});
          scan(context, q, k.slice_rows(begin, 1000), part);
          expect_same_bits(part, all.slice_rows(begin, 1000));
        }
      });
    }
  }
}

MSA_TEST_ON_DEVICES(MaxInnerProduct);

}  // namespace
}  // namespace msa
