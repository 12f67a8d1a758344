// A question's view of a bank whose keys lie on a GPU, against the same view with the CPU's scan.
#include "engine/bank_memory.h"

#include <gmock/gmock.h>
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

/// Rows [chunks, 2 (K|V), G·d] of spans on the GPU.
std::vector<char> bytes_of(Context& gpu, std::span<const KeyValueSpan> spans) {
  std::vector<char> out;
  for (const KeyValueSpan& span : spans) {
    EXPECT_EQ(span.v.as<char>() - span.k.as<char>(), span.k.dense_row_bytes());
    const Tensor both(span.k.data, DType::kI8, {span.k.rows(), 2 * span.k.dense_row_bytes()}, span.k.device);
    std::vector<char> part(static_cast<size_t>(both.bytes()));
    copy(gpu, both, Tensor(part.data(), DType::kI8, {both.rows(), both.dim(1)}));
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

/// What gather() gives for a selection: its documents' content, byte for byte.
void expect_content(Context& gpu, const Snapshot& snapshot, int layer_index, BankMemory& memory, int layer) {
  std::vector<char> expected;
  for (const ScoredDocument& d : memory.selection(layer_index)) {
    const Tensor content = snapshot.segments[static_cast<size_t>(d.segment)]->content(layer_index, d.index);
    expected.insert(expected.end(), content.as<char>(), content.as<char>() + content.bytes());
  }
  EXPECT_EQ(bytes_of(gpu, memory.gather(layer)), expected);
}

/// How a bank may lie on a GPU: all keys there, quantised keys with and without bf16 ones, little memory.
std::vector<DeviceOptions> device_options() {
  std::vector<DeviceOptions> all(6);
  all[1].keys = all[2].keys = KeyFormat::kInt8;
  all[3].keys = all[4].keys = KeyFormat::kInt4;
  all[2].gpu_memory = 350'000;
  all[4].gpu_memory = 200'000;
  all[5].gpu_memory = 60'000;
  for (DeviceOptions& o : all) o.piece_bytes = 20'000;
  return all;
}

TEST_P(BankMemoryTest, RoutesAsTheCpu) {
  Context cpu(2);
  Context& gpu = cuda_context();
  const auto snapshot = bank_->snapshot();
  config_.memory.layer_weights = {0.5f, 1.5f, 1.0f};
  std::vector<uint8_t> some(Router(snapshot).n_slots());
  for (size_t slot = 0; slot < some.size(); ++slot) some[slot] = slot % 3 != 0;
  for (const DeviceOptions& options : device_options()) {
    DeviceBank device(options);
    for (const auto& [top_k, allowed] :
         {std::pair<int, std::vector<uint8_t>>{0, {}}, {5, {}}, {80, {}}, {5, some}, {80, some}}) {
      const auto keys = device.keys(gpu, snapshot);
      SCOPED_TRACE("top " + std::to_string(top_k) + " of " + (allowed.empty() ? "all" : "some") + ", seed " +
                   std::to_string(kSeed) + ", " + describe(keys->placement(), keys->sizes()));
      BankMemory here(config_, snapshot, {top_k, allowed, /*late=*/true});
      BankMemory there(config_, snapshot, {top_k, allowed, /*late=*/true}, keys, device.content(gpu));
      EXPECT_TRUE(there.routed(3).empty());
      for (int i = 0; i < 3; ++i) {
        const int layer = config_.memory.routing_layers[static_cast<size_t>(i)];
        Buffer memory, on_gpu;
        testing::fill(memory, 4 * config_.q_size(), DType::kF32, random_);
        const Tensor q(memory.data(), DType::kF32, {4, config_.q_size()});
        here.route(cpu, layer, q);
        there.route(gpu, layer, to_device(gpu, q, on_gpu));
        there.gather(layer);
        EXPECT_EQ(there.selection(i).size(), static_cast<size_t>(top_k));
        expect_agree(here.selection(i), there.selection(i));
        expect_content(gpu, *snapshot, i, there, layer);
      }
      for (const int count : {1, 7, 64, 100}) expect_agree(here.routed(count), there.routed(count));
      const std::vector<ScoredDocument> best = there.routed(3);
      EXPECT_THAT(there.late_scores(best), ::testing::Pointwise(::testing::FloatNear(1e-5f), here.late_scores(best)));
      for (const ScoredDocument& d : best) {
        const std::vector<float> layers = there.layer_scores(d), expected = here.layer_scores(d);
        for (int i = 0; i < 3; ++i) {
          EXPECT_EQ(layers[static_cast<size_t>(i)], there.scores(i)[there.slot_of(d)]);
          EXPECT_NEAR(layers[static_cast<size_t>(i)], expected[static_cast<size_t>(i)], kTolerance);
        }
      }
    }
  }
}

/// Two questions by every placement: the same documents with the same scores, to the last bit; the second finds content
/// on the GPU.
TEST_P(BankMemoryTest, PlacementChangesNothing) {
  Context& gpu = cuda_context();
  const auto snapshot = bank_->snapshot();
  constexpr int kTop = 8;
  std::vector<std::vector<ScoredDocument>> expected;
  for (const DeviceOptions& options : device_options()) {
    random_.seed(kSeed);
    DeviceBank device(options);
    std::vector<std::vector<ScoredDocument>> found;
    for (int question = 0; question < 2; ++question) {
      const auto keys = device.keys(gpu, snapshot);
      SCOPED_TRACE(describe(keys->placement(), keys->sizes()));
      BankMemory memory(config_, snapshot, {kTop}, keys, device.content(gpu));
      for (int hop = 0; hop < 2; ++hop) {
        for (int i = 0; i < 3; ++i) {
          const int layer = config_.memory.routing_layers[static_cast<size_t>(i)];
          Buffer values, on_gpu;
          testing::fill(values, 9 * config_.q_size(), DType::kF32, random_);
          memory.route(gpu, layer, to_device(gpu, Tensor(values.data(), DType::kF32, {9, config_.q_size()}), on_gpu));
          memory.gather(layer);
          found.push_back(memory.selection(i));
          expect_content(gpu, *snapshot, i, memory, layer);
        }
        found.push_back(memory.routed(3));
        found.push_back(memory.routed(20));
      }
      EXPECT_EQ(memory.statistics().bounded, keys->has_bounds());
      EXPECT_EQ(memory.statistics().fell_back, 0);
    }
    EXPECT_GT(device.content(gpu)->size(), 0u);
    if (expected.empty()) expected = found;
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i].size(), expected[i].size()) << i;
      for (size_t d = 0; d < found[i].size(); ++d) {
        EXPECT_EQ(found[i][d].id, expected[i][d].id) << i;
        EXPECT_EQ(found[i][d].score, expected[i][d].score) << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(On, BankMemoryTest, ::testing::Values(DeviceType::kCuda), device_test_name);

}  // namespace
}  // namespace msa
