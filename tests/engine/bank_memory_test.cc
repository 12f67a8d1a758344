// A question's view of a bank whose keys lie on a GPU, against the same view with the CPU's scan.
#include "engine/bank_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "../bank/bank_testing.h"
#include "../device_testing.h"

namespace msa {
namespace {

constexpr float kTolerance = 1e-2f;  // the GPU rounds the queries to bf16

class BankMemoryTest : public DeviceTest {
 protected:
  BankMemoryTest() {
    config_.n_layers = 6;
    config_.n_heads = 6, config_.n_kv_heads = 2, config_.head_dim = 32;
    config_.memory.routing_layers = {2, 3, 5};
    BankShape shape = testing::small_shape();
    shape.kv_heads = config_.n_kv_heads, shape.head_dim = config_.head_dim;
    bank_ = Bank::in_memory(shape);
    for (const int64_t count : {40, 3, 200}) {
      EXPECT_TRUE(testing::add(*bank_, testing::random_batch(*bank_, count, random_)).committed());
    }
    for (const DocumentId dead : {1, 41, 42, 43, 100}) EXPECT_TRUE(bank_->remove(dead));
  }

  static constexpr uint32_t kSeed = 5;
  ModelConfig config_;
  std::unique_ptr<Bank> bank_;
  std::mt19937 random_{kSeed};
};

/// Documents that were chosen by scores a little apart: those far above the last one agree.
void expect_agree(const std::vector<ScoredDocument>& a, const std::vector<ScoredDocument>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i].score, b[i].score, kTolerance) << i;
    if (a[i].score < a.back().score + 2 * kTolerance) continue;
    const auto same = [&](const ScoredDocument& d) { return d.id == a[i].id; };
    EXPECT_TRUE(std::any_of(b.begin(), b.end(), same)) << "document " << a[i].id;
  }
}

/// What gather() gives for a selection: its documents' content, byte for byte.
void expect_content(Context& gpu, const Snapshot& snapshot, int layer_index, BankMemory& memory, int layer) {
  std::vector<char> expected;
  for (const ScoredDocument& d : memory.selection(layer_index)) {
    const Tensor content = snapshot.segments[static_cast<size_t>(d.segment)]->content(layer_index, d.index);
    expected.insert(expected.end(), content.as<char>(), content.as<char>() + content.bytes());
  }
  const auto spans = memory.gather(layer);
  ASSERT_EQ(spans.size(), 1u);
  const Tensor& k = spans[0].k;
  EXPECT_EQ(spans[0].v.as<char>() - k.as<char>(), k.dense_row_bytes());
  std::vector<char> found(expected.size());
  const Tensor both(k.data, DType::kI8, {k.rows(), 2 * k.dense_row_bytes()}, k.device);
  ASSERT_EQ(static_cast<size_t>(both.bytes()), expected.size());
  copy(gpu, both, Tensor(found.data(), DType::kI8, {both.rows(), both.dim(1)}));
  EXPECT_EQ(found, expected);
}

TEST_P(BankMemoryTest, RoutesAsTheCpu) {
  Context cpu(2);
  Context& gpu = cuda_context();
  const auto snapshot = bank_->snapshot();
  std::vector<uint8_t> some(Router(snapshot, Similarity::kCosine, config_.n_heads).n_slots());
  for (size_t slot = 0; slot < some.size(); ++slot) some[slot] = slot % 3 != 0;
  for (const auto& [top_k, allowed] :
       {std::pair<int, std::vector<uint8_t>>{0, {}}, {5, {}}, {80, {}}, {5, some}, {80, some}}) {
    SCOPED_TRACE("top " + std::to_string(top_k) + " of " + (allowed.empty() ? "all" : "some") + ", seed " +
                 std::to_string(kSeed));
    BankMemory here(config_, snapshot, top_k, allowed);
    BankMemory there(config_, snapshot, top_k, allowed, std::make_shared<DeviceKeys>(gpu, snapshot));
    EXPECT_TRUE(there.routed(3).empty());
    for (int i = 0; i < 3; ++i) {
      const int layer = config_.memory.routing_layers[static_cast<size_t>(i)];
      Buffer memory, on_gpu;
      testing::fill(memory, 4 * config_.q_size(), DType::kF32, random_);
      const Tensor q(memory.data(), DType::kF32, {4, config_.q_size()});
      here.route(cpu, layer, q);
      there.route(gpu, layer, to_device(gpu, q, on_gpu));
      EXPECT_EQ(there.selection(i).size(), static_cast<size_t>(top_k));
      expect_agree(here.selection(i), there.selection(i));
      if (top_k > 0) expect_content(gpu, *snapshot, i, there, layer);
    }
    for (const int count : {1, 7, 64, 100}) expect_agree(here.routed(count), there.routed(count));
    for (const ScoredDocument& d : there.routed(3)) {
      const std::vector<float> layers = there.layer_scores(d), expected = here.layer_scores(d);
      for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(layers[static_cast<size_t>(i)], there.scores(i)[there.slot_of(d)]);
        EXPECT_NEAR(layers[static_cast<size_t>(i)], expected[static_cast<size_t>(i)], kTolerance);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(On, BankMemoryTest, ::testing::Values(DeviceType::kCuda), device_test_name);

}  // namespace
}  // namespace msa
