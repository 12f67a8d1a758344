// Tokens one by one must give what they give at once: the cache, its growth and, on CUDA, the graph of a decoding step.
#include "engine/session.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "../device_testing.h"
#include "core/cpu.h"
#include "engine/sampler.h"
#include "tiny_model.h"

namespace msa {
namespace {

struct Case {
  const char* name;
  DeviceType device;
  Precision precision;
  double tolerance;  // of a row of logits, relative to its Euclidean norm
};

class SessionTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Device device{GetParam().device, 0};
    if (const std::string why = device_problem(device); !why.empty()) {
      ASSERT_EQ(std::getenv("MSA_REQUIRE_CUDA"), nullptr) << why;
      GTEST_SKIP() << why;
    }
    context_ = std::make_unique<Context>(2, device);
    testing::TinyShape shape;
    shape.head_dim = 64;
    shape.hidden = 128;
    testing::write_tiny_model(folder_.path(), shape, kSeed);
    model_ = std::make_unique<Model>(*context_, folder_.path().string(), GetParam().precision);
  }

  Session session() { return {*context_, model_->transformer(), model_->head(), nullptr, model_->head().length()}; }

  static std::vector<int32_t> random_tokens(size_t n) {
    std::mt19937 random(kSeed);
    std::vector<int32_t> out(n);
    for (int32_t& t : out) t = static_cast<int32_t>(random() % 256);
    return out;
  }

  static double distance(std::span<const float> a, const float* b) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
      size += std::pow(static_cast<double>(b[i]), 2);
    }
    return std::sqrt(difference / size);
  }

  static constexpr uint64_t kSeed = 11;
  testing::TemporaryFolder folder_;
  std::unique_ptr<Context> context_;
  std::unique_ptr<Model> model_;
};

TEST_P(SessionTest, TokensOneByOneGiveWhatTheyGiveAtOnce) {
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  const std::vector<int32_t> tokens = random_tokens(530);  // beyond the cache's first size
  Session at_once = session(), one_by_one = session();
  const Tensor expected = at_once.feed_all(*context_, tokens);
  for (size_t t = 0; t < tokens.size(); ++t) {
    const std::span<const float> logits = one_by_one.feed(*context_, {&tokens[t], 1});
    ASSERT_LE(distance(logits, expected.row<float>(static_cast<int64_t>(t))), GetParam().tolerance) << "token " << t;
  }
}

TEST_P(SessionTest, AHopInBetweenLeavesNoTrace) {
  const std::vector<int32_t> tokens = random_tokens(40);
  Session fresh = session(), used = session();
  for (const int32_t t : tokens) used.feed(*context_, {&t, 1});
  used.restart();
  for (Session* s : {&fresh, &used}) s->feed(*context_, std::span(tokens).first(20));
  for (size_t t = 20; t < tokens.size(); ++t) {
    const std::span<const float> a = fresh.feed(*context_, {&tokens[t], 1});
    const std::span<const float> b = used.feed(*context_, {&tokens[t], 1});
    ASSERT_LE(distance(a, b.data()), 1e-6) << "token " << t;
  }
}

TEST_P(SessionTest, FeedingGreedilyTakesTheLargestLogit) {
  const std::vector<int32_t> prompt = random_tokens(10);
  Session a = session(), b = session();
  int32_t token = argmax(a.feed(*context_, prompt));
  b.feed(*context_, prompt);
  for (int i = 0; i < 20; ++i) {
    const int32_t next = argmax(a.feed(*context_, {&token, 1}));
    ASSERT_EQ(b.feed_greedily(*context_, token), next) << "token " << i;
    token = next;
  }
}

INSTANTIATE_TEST_SUITE_P(On, SessionTest,
                         ::testing::Values(Case{"Cpu", DeviceType::kCpu, Precision::kF32, 1e-4},
                                           Case{"CudaF32", DeviceType::kCuda, Precision::kF32, 1e-4},
                                           Case{"CudaBF16", DeviceType::kCuda, Precision::kBF16, 4e-2}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace msa
