// The scan on a GPU against the one on the CPU, over a bank of several segments with removed documents.
#include "router/device_keys.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../bank/bank_testing.h"
#include "../device_testing.h"

namespace msa {
namespace {

using testing::add;
using testing::random_batch;

class DeviceKeysTest : public DeviceTest {};

BankShape shape_of(int kv_heads, int head_dim) {
  BankShape shape = testing::small_shape();
  shape.kv_heads = kv_heads;
  shape.head_dim = head_dim;
  return shape;
}

TEST_P(DeviceKeysTest, ScoresAsTheCpu) {
  Context cpu(2);
  Context& gpu = cuda_context();
  for (const auto& [kv_heads, head_dim] : {std::pair{3, 64}, std::pair{8, 128}, std::pair{2, 16}}) {
    constexpr int kGroup = 3;
    constexpr uint32_t kSeed = 29;
    SCOPED_TRACE("width " + std::to_string(kv_heads * head_dim) + ", seed " + std::to_string(kSeed));
    std::mt19937 random(kSeed);
    const auto bank = Bank::in_memory(shape_of(kv_heads, head_dim));
    for (const int64_t count : {1, 300, 7}) ASSERT_TRUE(add(*bank, random_batch(*bank, count, random)).committed());
    for (const DocumentId dead : {1, 5, 6, 301, 302, 308}) ASSERT_TRUE(bank->remove(dead));
    const int heads = kv_heads * kGroup;
    const DeviceKeys keys(gpu, bank->snapshot());
    for (const Similarity similarity : {Similarity::kCosine, Similarity::kScaledDot}) {
      const Router router(bank->snapshot(), similarity, heads);
      for (const int64_t n_routed : {1, 32, 70}) {
        Buffer memory, device_memory;
        testing::fill(memory, n_routed * heads * head_dim, DType::kF32, random);
        const Tensor q(memory.data(), DType::kF32, {n_routed, heads * head_dim});
        std::vector<float> expected, scores;
        router.score(cpu, 1, q, expected);
        keys.score(gpu, 1, to_device(gpu, q, device_memory), similarity, heads, scores);
        ASSERT_EQ(scores.size(), expected.size());
        for (size_t slot = 0; slot < scores.size(); ++slot) {
          if (std::isinf(expected[slot])) {
            EXPECT_EQ(scores[slot], expected[slot]) << slot;
          } else {
            // Both may round the query to bf16: 2^-8 of the terms of the sum.
            EXPECT_NEAR(scores[slot], expected[slot], 1e-2 * std::max(1.0f, std::abs(expected[slot]))) << slot;
          }
        }
      }
    }
  }
}

TEST_P(DeviceKeysTest, AnEmptyBankHasNoScores) {
  const auto bank = Bank::in_memory(shape_of(2, 16));
  const DeviceKeys keys(cuda_context(), bank->snapshot());
  Buffer memory;
  const Tensor q = memory.tensor(DType::kF32, {1, 2 * 16}, cuda_context().device);
  std::vector<float> scores{1};
  keys.score(cuda_context(), 0, q, Similarity::kCosine, 2, scores);
  EXPECT_TRUE(scores.empty());
}

INSTANTIATE_TEST_SUITE_P(On, DeviceKeysTest, ::testing::Values(DeviceType::kCuda), device_test_name);

}  // namespace
}  // namespace msa
