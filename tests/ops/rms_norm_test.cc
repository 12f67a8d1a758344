#include "ops/rms_norm.h"

#include "op_test.h"

namespace msa {
namespace {

class RmsNorm : public DeviceTest {};

TEST_P(RmsNorm, EqualsReference) {
  for (const DType out_type : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {1, 7, 64, 576, 577, 1028, 2560, 4096, 8192, 8196}) {
      for (const auto& [tokens, gap] : {std::pair<int64_t, int64_t>{0, 0}, {1, 5}, {33, 4}, {33, 5}}) {
        Draw draw(static_cast<uint32_t>(n * 100 + tokens));
        const Tensor x = draw.normal(DType::kF32, {tokens, n}, 3, gap), weight = draw.normal(DType::kF32, {n});
        const Tensor expected = draw.nan(DType::kF32, {tokens, n});
        reference::rms_norm(x, weight, 1e-5f, expected);
        for_each_setting(device(), [&](Context& context) {
          const Tensor y = draw.nan(out_type, {tokens, n}, gap);
          {
            OnDevice on(context);
            rms_norm(context, on.in(x), on.in(weight), 1e-5f, on.out(y));
          }
          // The longer the sum of squares, the more roundings.
          expect_near(y, expected, 1e-30, rounding(out_type) + 1e-9 * static_cast<double>(n));
        });
      }
    }
  }
}

TEST_P(RmsNorm, InPlaceAndExtremes) {
  Draw draw(7);
  const Tensor weight = draw.normal(DType::kF32, {96});
  for (const float scale : {0.0f, 1e-12f, 1e12f}) {
    const Tensor x = draw.normal(DType::kF32, {40, 96}, scale), expected = draw.nan(DType::kF32, {40, 96});
    reference::rms_norm(x, weight, 1e-6f, expected);
    for_each_setting(device(), [&](Context& context) {
      const Tensor y = draw.copy(x);
      {
        OnDevice on(context);
        const Tensor both = on.out(y);
        rms_norm(context, both, on.in(weight), 1e-6f, both);
      }
      expect_near(y, expected, 1e-30, 2e-6);
    });
  }
}

TEST_P(RmsNorm, OfHeadsEqualsReference) {
  for (const int64_t d : {8, 20, 64, 128}) {
    Draw draw(static_cast<uint32_t>(d));
    const Tensor x = draw.normal(DType::kF32, {37, 5, d}, 2, 11), weight = draw.normal(DType::kF32, {d});
    const Tensor expected = draw.copy(x);
    reference::rms_norm_heads(expected, weight, 1e-6f);
    for_each_setting(device(), [&](Context& context) {
      const Tensor y = draw.copy(x);
      {
        OnDevice on(context);
        rms_norm_heads(context, on.out(y), on.in(weight), 1e-6f);
      }
      expect_near(y, expected, 1e-30, 2e-6);
    });
  }
}

MSA_TEST_ON_DEVICES(RmsNorm);

}  // namespace
}  // namespace msa
