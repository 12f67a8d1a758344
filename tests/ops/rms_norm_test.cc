#include "ops/rms_norm.h"

#include "op_test.h"

namespace msa {
namespace {

TEST(RmsNorm, EqualsReference) {
  for (const DType out_type : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {1, 7, 64, 576, 577}) {
      for (const int64_t tokens : {0, 1, 33}) {
        Draw draw(static_cast<uint32_t>(n * 100 + tokens));
        const Tensor x = draw.normal(DType::kF32, {tokens, n}, 3, 5), weight = draw.normal(DType::kF32, {n});
        const Tensor expected = draw.nan(DType::kF32, {tokens, n});
        reference::rms_norm(x, weight, 1e-5f, expected);
        for (const int threads : {1, 2, 3}) {
          Context context(threads);
          const Tensor y = draw.nan(out_type, {tokens, n}, 3);
          for_each_instruction_set([&] {
            rms_norm(context, x, weight, 1e-5f, y);
            expect_near(y, expected, 1e-30, rounding(out_type));
          });
        }
      }
    }
  }
}

TEST(RmsNorm, InPlaceAndExtremes) {
  Draw draw(7);
  Context context(2);
  const Tensor weight = draw.normal(DType::kF32, {96});
  for (const float scale : {0.0f, 1e-12f, 1e12f}) {
    const Tensor x = draw.normal(DType::kF32, {40, 96}, scale), expected = draw.nan(DType::kF32, {40, 96});
    reference::rms_norm(x, weight, 1e-6f, expected);
    rms_norm(context, x, weight, 1e-6f, x);
    expect_near(x, expected, 1e-30, 2e-6);
  }
}

TEST(RmsNormHeads, EqualsReference) {
  for (const int64_t d : {8, 20, 64, 128}) {
    Draw draw(static_cast<uint32_t>(d));
    const Tensor x = draw.normal(DType::kF32, {37, 5, d}, 2, 11), weight = draw.normal(DType::kF32, {d});
    const Tensor expected = draw.copy(x);
    reference::rms_norm_heads(expected, weight, 1e-6f);
    Context context(2);
    rms_norm_heads(context, x, weight, 1e-6f);
    expect_near(x, expected, 1e-30, 2e-6);
  }
}

}  // namespace
}  // namespace msa
