#include "ops/rope.h"

#include <numbers>

#include "op_test.h"

namespace msa {
namespace {

TEST(RopeTable, HoldsTheAngles) {
  const RopeTable table(64, 10000.0f, 2048);
  ASSERT_EQ(table.cos_sin.size(), 2048u * 64u);
  for (int p = 0; p < 2048; p += 31) {
    for (int i = 0; i < 32; ++i) {
      const double angle = p * std::pow(10000.0, -2.0 * i / 64);
      // The angle is a float32, as in the public code: half a unit in its last place and of the frequency's.
      const double tolerance = 1e-7 + angle * 0x1p-23;
      EXPECT_NEAR(static_cast<double>(table.cos_sin[static_cast<size_t>(p * 64 + i)]), std::cos(angle), tolerance);
      EXPECT_NEAR(static_cast<double>(table.cos_sin[static_cast<size_t>(p * 64 + 32 + i)]), std::sin(angle), tolerance);
    }
  }
}

class Rope : public DeviceTest {};

TEST_P(Rope, EqualsReference) {
  for (const int d : {2, 8, 24, 64, 128}) {
    for (const int64_t heads : {1, 3, 9}) {
      Draw draw(static_cast<uint32_t>(d * 10 + heads));
      RopeTable table(d, 100000.0f, 300);
      std::vector<int32_t> positions(65);
      for (int32_t& p : positions) p = static_cast<int32_t>(draw.engine()() % 300);
      positions[0] = 299;
      const Tensor x = draw.normal(DType::kF32, {65, heads, d}, 2, 7), expected = draw.copy(x);
      reference::rope(table, positions, expected);
      for_each_setting(device(), [&](Context& context) {
        table.prepare(context);
        Buffer memory;
        const Tensor y = draw.copy(x);
        rope(context, table, upload(context, positions, memory), OnDevice(context).out(y));
        expect_near(y, expected, 2e-6, 1e-6);
      });
    }
  }
}

MSA_TEST_ON_DEVICES(Rope);

TEST(RopeDeath, PositionBeyondTheTable) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Draw draw(1);
  const RopeTable table(8, 10000.0f, 4);
  const Tensor x = draw.normal(DType::kF32, {1, 1, 8});
  for (const int32_t position : {4, -1}) {
    EXPECT_DEATH(
        {
          Context context(1);
          rope(context, table, std::vector<int32_t>{position}, x);
        },
        "max_positions");
  }
}

}  // namespace
}  // namespace msa
