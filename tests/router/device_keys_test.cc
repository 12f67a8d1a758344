// The scan on a GPU against the one on the CPU, over a bank of several segments with removed documents.
#include "router/device_keys.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

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

std::vector<float> scores_of(Context& gpu, const DeviceKeys& keys, const Tensor& q, const DeviceKeys::Scope& scope) {
  std::vector<float> out(static_cast<size_t>(keys.n_slots()));
  Buffer memory;
  const Tensor scores = memory.tensor(DType::kF32, {keys.n_slots()}, gpu.device);
  keys.score(gpu, 1, q, scope, scores);
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
      const Router router(bank->snapshot());
      for (const int64_t n_routed : {1, 32, 70}) {
        Buffer memory, folded_memory, device_memory, folded_on_gpu;
        testing::fill(memory, n_routed * heads * head_dim, DType::kF32, random);
        const Tensor q(memory.data(), DType::kF32, {n_routed, heads * head_dim});
        const HeadFold how{similarity, heads, kv_heads};
        std::vector<float> expected;
        router.score(cpu, 1, fold_query(cpu, q, how, folded_memory), expected);
        ASSERT_EQ(keys.n_slots(), router.n_slots());
        const Tensor folded = fold_query(gpu, to_device(gpu, q, device_memory), how, folded_on_gpu);
        const std::vector<float> scores = scores_of(gpu, keys, folded, {});
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
  EXPECT_TRUE(scores_of(cuda_context(), DeviceKeys(cuda_context(), bank->snapshot()), q, {}).empty());
  ASSERT_TRUE(add(*bank, random_batch(*bank, 2, random)).committed());
  for (const DocumentId id : {1, 2}) ASSERT_TRUE(bank->remove(id));
  const DeviceKeys keys(cuda_context(), bank->snapshot());
  for (const float score : scores_of(cuda_context(), keys, q, {})) EXPECT_EQ(score, -INFINITY);
}

/// A bank of several segments, its keys under every placement.
class KeyPlacementTest : public DeviceTest {
 protected:
  static constexpr int kSeed = 31;

  KeyPlacementTest() : bank_(Bank::in_memory(shape_of(2, 96))) {
    grow({200, 7});
    for (const DocumentId dead : {1, 5, 6, 201}) EXPECT_TRUE(bank_->remove(dead));
  }
  void grow(std::initializer_list<int64_t> counts) {
    for (const int64_t count : counts) ASSERT_TRUE(add(*bank_, random_batch(*bank_, count, random_)).committed());
  }
  KeySizes sizes() const { return {KeyRows(bank_->snapshot()).n_rows(), 3, 192}; }

  /// Memory for this many rows of so many bytes, and pieces of some dozen keys.
  DeviceOptions options(KeyFormat format, int64_t rows, int64_t row_bytes) const {
    DeviceOptions o;
    o.keys = format;
    o.gpu_memory = rows * row_bytes * sizes().layers * 8 / 7 + 8;  // an eighth is for content
    o.piece_bytes = 10'000;
    return o;
  }
  /// All on the GPU, a part, (nearly) nothing, with and without int8 keys.
  std::vector<DeviceOptions> placements() const {
    const int64_t n = sizes().rows, exact = 2 * 192, int8 = 192 + 16, int4 = 96 + 16;
    return {options(KeyFormat::kBF16, n, exact),        options(KeyFormat::kBF16, n / 3, exact),
            options(KeyFormat::kBF16, 0, exact),        options(KeyFormat::kInt8, n, exact + int8),
            options(KeyFormat::kInt8, n, int8),         options(KeyFormat::kInt8, n / 2, int8),
            options(KeyFormat::kInt4, n, exact + int4), options(KeyFormat::kInt4, n, int4),
            options(KeyFormat::kInt4, n / 2, int4),     options(KeyFormat::kAuto, n / 4 * 3, exact)};
  }

  Tensor query(int64_t rows) {
    testing::fill(host_, rows * 192, DType::kF32, random_);
    return to_device(gpu(), Tensor(host_.data(), DType::kF32, {rows, 192}), on_gpu_);
  }
  static Context& gpu() { return cuda_context(); }

  struct Routed {
    std::vector<float> scores, lower, upper;
    int32_t candidates = -1;
  };
  static Routed route(const DeviceKeys& keys, const Tensor& q, const DeviceKeys::Scope& scope, int k) {
    Buffer memory, count;
    const int64_t n = keys.n_slots();
    const Tensor all = memory.tensor(DType::kF32, {3, n}, gpu().device);
    const auto row = [&](int64_t i) { return all.slice_rows(i, i + 1).reshape({n}); };
    const Tensor candidates = count.tensor(DType::kI32, {1}, gpu().device);
    keys.route(gpu(), 1, q, scope, k, row(0), {row(1), row(2), candidates});
    Routed out;
    for (const auto& [i, to] : {std::pair{0, &out.scores}, {1, &out.lower}, {2, &out.upper}}) {
      to->resize(static_cast<size_t>(n));
      copy(gpu(), row(i), Tensor(to->data(), DType::kF32, {n}));
    }
    copy(gpu(), candidates, Tensor(&out.candidates, DType::kI32, {1}));
    return out;
  }

  /// The scores of `keys` are those of keys that all lie on the GPU, bit for bit; so are the best documents by bounds.
  void expect_same(const DeviceKeys& keys, const DeviceKeys& plain) {
    const int64_t n = plain.n_slots();
    ASSERT_EQ(keys.n_slots(), n);
    std::vector<uint8_t> some(static_cast<size_t>(n));
    for (size_t i = 0; i < some.size(); ++i) some[i] = i % 3 != 1;
    Buffer allowed_memory;
    const Tensor allowed = to_device(gpu(), Tensor::of_const(some.data(), DType::kI8, {n}), allowed_memory);
    for (const DeviceKeys::Scope& scope : {DeviceKeys::Scope{}, {allowed, some}}) {
      for (const int64_t m : {1, 20, 70}) {
        const Tensor q = query(m);
        const std::vector<float> expected = scores_of(gpu(), plain, q, scope);
        ASSERT_EQ(scores_of(gpu(), keys, q, scope), expected) << m;
        if (!keys.has_bounds()) continue;
        constexpr int k = 8;
        const Routed found = route(keys, q, scope, k);
        std::vector<float> sorted = expected;
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        for (size_t d = 0; d < expected.size(); ++d) {
          ASSERT_LE(found.scores[d], expected[d]) << d;
          ASSERT_LE(found.lower[d], expected[d]) << d;
          ASSERT_GE(found.upper[d], expected[d]) << d;
          const bool is_best = expected[d] >= sorted[k - 1] && expected[d] > -INFINITY;
          ASSERT_TRUE(!is_best || found.scores[d] == expected[d]) << d;
        }
        EXPECT_GE(found.candidates, 0);
      }
    }
  }

  std::mt19937 random_{kSeed};
  std::unique_ptr<Bank> bank_;
  Buffer host_, on_gpu_;
  DocumentId next_dead_ = 20;
};

TEST_P(KeyPlacementTest, WhereverTheyLieTheScoresAreTheSame) {
  const DeviceKeys plain(gpu(), bank_->snapshot());
  EXPECT_EQ(plain.placement(), (KeyPlacement{sizes().rows, 0, 8}));
  for (const DeviceOptions& o : placements()) {
    const DeviceKeys keys(gpu(), bank_->snapshot(), o);
    SCOPED_TRACE(describe(keys.placement(), keys.sizes()) + ", seed " + std::to_string(kSeed));
    expect_same(keys, plain);
    if (HasFailure()) return;
  }
}

/// Only new rows are copied, whatever happens to the bank; the scores are those of keys made anew.
TEST_P(KeyPlacementTest, FollowsTheBank) {
  for (const DeviceOptions& o : placements()) {
    DeviceOptions roomy = o;
    roomy.gpu_memory *= 2;
    auto kept = std::make_shared<DeviceKeys>(gpu(), bank_->snapshot(), roomy);
    SCOPED_TRACE(describe(kept->placement(), kept->sizes()) + ", seed " + std::to_string(kSeed));
    const DeviceKeys* const first = kept.get();
    const auto step = [&] {
      const auto before = kept->snapshot();
      const int64_t uploaded = kept->uploaded_rows();
      const auto snapshot = bank_->snapshot();
      const int64_t common = KeyRows::common_rows(*before, *snapshot);
      const auto keys = device_keys(gpu(), snapshot, kept, roomy);
      ASSERT_EQ(keys->snapshot(), snapshot);
      EXPECT_TRUE(keys.get() != first || keys->uploaded_rows() - uploaded <= keys->sizes().rows - common);
      expect_same(*keys, DeviceKeys(gpu(), snapshot));
    };
    step();
    ASSERT_TRUE(bank_->remove(next_dead_++));
    step();
    grow({2});
    step();
    grow({60, 1});
    step();
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(On, KeyPlacementTest, ::testing::Values(DeviceType::kCuda), device_test_name);
INSTANTIATE_TEST_SUITE_P(On, DeviceKeysTest, ::testing::Values(DeviceType::kCuda), device_test_name);

}  // namespace
}  // namespace msa
