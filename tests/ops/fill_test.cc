#include "ops/fill.h"

#include "op_test.h"

namespace msa {
namespace {

class Fill : public DeviceTest {};

TEST_P(Fill, IsUniformAndTheSameOnEveryDevice) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    Draw draw(1);
    Context host(1);
    const Tensor expected = draw.nan(type, {10000});
    fill_uniform(host, expected, 2.0f, 7);
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < 10000; ++i) {
      const double x = reference::get(expected, i, 0);
      ASSERT_LE(std::abs(x), 2.0);
      sum += x;
      squares += x * x;
    }
    EXPECT_NEAR(sum / 10000, 0, 0.05);            // four standard errors
    EXPECT_NEAR(squares / 10000, 4.0 / 3, 0.05);  // of the variance too
    for_each_setting(device(), [&](Context& context) {
      const Tensor y = draw.nan(type, {10000});
      fill_uniform(context, OnDevice(context).out(y), 2.0f, 7);
      expect_same_bits(y, expected);
    });
    for_each_setting(device(), [&](Context& context) {
      const Tensor y = draw.nan(type, {4000});
      fill_uniform(context, OnDevice(context).out(y), 2.0f, 7, 6000);
      expect_same_bits(y, expected.slice_rows(6000, 10000));
    });
  }
}

MSA_TEST_ON_DEVICES(Fill);

}  // namespace
}  // namespace msa
