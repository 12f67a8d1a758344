#include "ops/silu_mul.h"

#include "op_test.h"

namespace msa {
namespace {

class SiluMul : public DeviceTest {};

TEST_P(SiluMul, EqualsReference) {
  for (const DType in : {DType::kF32, DType::kBF16}) {
    for (const DType out : {DType::kF32, DType::kBF16}) {
      for (const int64_t n : {1, 16, 100, 1536}) {
        for (const float scale : {1.0f, 50.0f}) {
          Draw draw(static_cast<uint32_t>(n));
          const Tensor both = draw.normal(in, {17, 2 * n}, scale);
          const Tensor gate = both.slice_columns(0, n), up = both.slice_columns(n, 2 * n);
          const Tensor expected = draw.nan(DType::kF32, {17, n});
          reference::silu_mul(gate, up, expected);
          for_each_setting(device(), [&](Context& context) {
            const Tensor y = draw.nan(out, {17, n}, 3);
            {
              OnDevice on(context);
              silu_mul(context, on.in(gate), on.in(up), on.out(y));
            }
            expect_near(y, expected, 1e-33, rounding(out));
          });
        }
      }
    }
  }
}

TEST_P(SiluMul, Extremes) {
  Draw draw(1);
  const std::vector<float> values = {
      -std::numeric_limits<float>::max(), -1e4f, -88.0f, -80.0f, -1e-30f, 0.0f, 1e-30f, 80.0f, 88.0f, 1e4f,
      std::numeric_limits<float>::max()};
  const int64_t n = static_cast<int64_t>(values.size());
  const Tensor gate = Tensor::of_const(values.data(), DType::kF32, {1, n});
  const std::vector<float> ones(values.size(), 1.0f);
  const Tensor y = draw.nan(DType::kF32, {1, n}), expected = draw.nan(DType::kF32, {1, n});
  reference::silu_mul(gate, Tensor::of_const(ones.data(), DType::kF32, {1, n}), expected);
  for_each_setting(device(), [&](Context& context) {
    {
      OnDevice on(context);
      silu_mul(context, on.in(gate), on.in(Tensor::of_const(ones.data(), DType::kF32, {1, n})), on.out(y));
    }
    expect_near(y, expected, 1e-35, 1e-6);
  });
}

MSA_TEST_ON_DEVICES(SiluMul);

}  // namespace
}  // namespace msa
