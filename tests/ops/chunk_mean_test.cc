#include "ops/chunk_mean.h"

#include "op_test.h"

namespace msa {
namespace {

TEST(CountChunks, RoundsUpPerSequence) {
  EXPECT_EQ(count_chunks(std::vector<int64_t>{0}, 64), 0);
  EXPECT_EQ(count_chunks(std::vector<int64_t>{0, 1, 65, 129, 129, 194}, 64), 1 + 1 + 1 + 0 + 2);
}

class ChunkMean : public DeviceTest {};

TEST_P(ChunkMean, EqualsReference) {
  const std::vector<int64_t> starts = {0, 1, 64, 128, 128, 193, 400};
  for (const DType in : {DType::kF32, DType::kBF16}) {
    for (const DType out : {DType::kF32, DType::kBF16}) {
      for (const auto& [n, gap] : {std::pair<int64_t, int64_t>{1, 9}, {50, 9}, {192, 9}, {192, 8}, {1024, 4}}) {
        for (const int chunk : {1, 10, 64, 1000}) {
          Draw draw(static_cast<uint32_t>(n + chunk));
          const Tensor x = draw.normal(in, {400, n}, 1, gap);
          const int64_t chunks = count_chunks(starts, chunk);
          const Tensor expected = draw.nan(DType::kF32, {chunks, n});
          reference::chunk_mean(x, starts, chunk, expected);
          for_each_setting(device(), [&](Context& context) {
            const Tensor y = draw.nan(out, {chunks, n}, gap);
            {
              OnDevice on(context);
              Buffer memory;
              chunk_mean(context, on.in(x), upload(context, starts, chunk, memory), chunk, on.out(y));
            }
            expect_near(y, expected, 1e-6, rounding(out));
          });
        }
      }
    }
  }
}

class L2NormalizeHeads : public DeviceTest {};

TEST_P(L2NormalizeHeads, EqualsReference) {
  for (const int64_t d : {1, 8, 20, 64, 128}) {
    for (const float scale : {1.0f, 1e-5f, 1e10f}) {
      Draw draw(static_cast<uint32_t>(d));
      const Tensor x = draw.normal(DType::kF32, {37, 3, d}, scale, 13), expected = draw.copy(x);
      reference::l2_normalize_heads(expected);
      for_each_setting(device(), [&](Context& context) {
        const Tensor y = draw.copy(x);
        l2_normalize_heads(context, OnDevice(context).out(y));
        expect_near(y, expected, 0, 2e-6);
      });
    }
  }
}

TEST_P(L2NormalizeHeads, ZeroStaysZero) {
  Draw draw(1);
  const Tensor zero = draw.normal(DType::kF32, {2, 1, 16}, 0);
  for_each_setting(device(), [&](Context& context) {
    const Tensor x = draw.copy(zero);
    l2_normalize_heads(context, OnDevice(context).out(x));
    expect_near(x, zero, 0, 0);
  });
}

MSA_TEST_ON_DEVICES(ChunkMean);
MSA_TEST_ON_DEVICES(L2NormalizeHeads);

}  // namespace
}  // namespace msa
