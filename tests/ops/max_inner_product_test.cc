#include "ops/max_inner_product.h"

#include "op_test.h"

namespace msa {
namespace {

TEST(MaxInnerProduct, EqualsReference) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {1, 24, 192, 1024}) {
      for (const int64_t m : {1, 2, 3, 16, 31, 33, 100}) {
        for (const int64_t keys : {0, 1, 13, 250}) {
          if (n == 1024 && m == 100) continue;  // the reference is slow
          Draw draw(static_cast<uint32_t>(n * 1000 + m));
          const Tensor q = draw.normal(DType::kF32, {m, n}, 1, 3), k = draw.normal(type, {keys, n}, 1, 5);
          const Tensor y = draw.nan(DType::kF32, {keys}), expected = draw.nan(DType::kF32, {keys});
          reference::max_inner_product(q, k, expected);
          Context context(2);
          for_each_instruction_set([&] {
            max_inner_product(context, q, k, y);
            // Float32 sums of n products of size ~1.
            expect_near(y, expected, 1e-6 * std::sqrt(static_cast<double>(n)), 1e-5);
          });
        }
      }
    }
  }
}

TEST(MaxInnerProduct, ScoreOfAKeyDependsOnTheKeyAlone) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const int64_t m : {1, 2, 40}) {
      Draw draw(static_cast<uint32_t>(m));
      const Tensor q = draw.normal(DType::kF32, {m, 192}), k = draw.normal(type, {1000, 192});
      const Tensor all = draw.nan(DType::kF32, {1000});
      Context one(1);
      max_inner_product(one, q, k, all);
      for (const int threads : {2, 3}) {
        Context context(threads);
        const Tensor again = draw.nan(DType::kF32, {1000});
        max_inner_product(context, q, k, again);
        expect_same_bits(again, all);
      }
      for (const int64_t begin : {1, 7, 500, 999}) {
        const Tensor part = draw.nan(DType::kF32, {1000 - begin});
        max_inner_product(one, q, k.slice_rows(begin, 1000), part);
        expect_same_bits(part, all.slice_rows(begin, 1000));
      }
    }
  }
}

}  // namespace
}  // namespace msa
