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

std::vector<float> scores_of(Context& gpu, const DeviceKeys& keys, const Tensor& q, const DeviceKeys::Scoring& how) {
  std::vector<float> out(static_cast<size_t>(keys.n_slots()));
  Buffer memory;
  const Tensor scores = memory.tensor(DType::kF32, {keys.n_slots()}, gpu.device);
  keys.score(gpu, 1, q, how, scores);
  copy(gpu, scores, Tensor(out.data(), DType::kF32, {keys.n_slots()}));
  return out;
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
        std::vector<float> expected;
        router.score(cpu, 1, q, expected);
        ASSERT_EQ(keys.n_slots(), router.n_slots());
        const std::vector<float> scores =
            scores_of(gpu, keys, to_device(gpu, q, device_memory), {similarity, heads, {}});
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

TEST_P(DeviceKeysTest, ABankOfTheDeadHasNoScores) {
  std::mt19937 random(3);
  const auto bank = Bank::in_memory(shape_of(2, 16));
  Buffer memory;
  const Tensor q = memory.tensor(DType::kF32, {1, 2 * 16}, cuda_context().device);
  const DeviceKeys::Scoring how{Similarity::kCosine, 2, {}};
  EXPECT_TRUE(scores_of(cuda_context(), DeviceKeys(cuda_context(), bank->snapshot()), q, how).empty());
  ASSERT_TRUE(add(*bank, random_batch(*bank, 2, random)).committed());
  for (const DocumentId id : {1, 2}) ASSERT_TRUE(bank->remove(id));
  const DeviceKeys keys(cuda_context(), bank->snapshot());
  for (const float score : scores_of(cuda_context(), keys, q, how)) EXPECT_EQ(score, -INFINITY);
}

INSTANTIATE_TEST_SUITE_P(On, DeviceKeysTest, ::testing::Values(DeviceType::kCuda), device_test_name);

}  // namespace
}  // namespace msa
