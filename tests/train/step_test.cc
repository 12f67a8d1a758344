// Losses and gradients of one step: the public code's, brute force, and what must not change them.
#include "train/step.h"

#include <gtest/gtest.h>

#include <random>

#include "../engine/tiny_model.h"
#include "devices.h"
#include "io/safetensors.h"
#include "train/backbone.h"
#include "train/conformance.h"
#include "train/recompute.h"

namespace msa::train {
namespace {

class TrainingConformance : public OnDevice {};

TEST_P(TrainingConformance, LossesAndEveryGradient) {
  for (const char* name : {"train-eq5", "train-infonce"}) {
    const auto checks = run_conformance(test_data() + "/conformance/" + name, device_);
    EXPECT_GT(checks.size(), 40u);
    for (const TensorCheck& c : checks) EXPECT_TRUE(c.ok) << name << " " << c.name << " " << c.relative;
  }
}

MSA_ON_EVERY_DEVICE(TrainingConformance);

TEST(RoutingScores, EqualBruteForceWithGradients) {
  torch::manual_seed(3);
  const auto q = torch::randn({11, 6}).set_requires_grad(true), k = torch::randn({9, 6}).set_requires_grad(true);
  // Sample 1 has no routed token, document 2 has one chunk.
  const RowOwners samples = RowOwners::from({0, 4, 4, 11}, torch::kCPU);
  const RowOwners documents = RowOwners::from({0, 3, 8, 9}, torch::kCPU);
  const auto scores = routing_scores(q, samples, k, documents).best;
  const auto products = torch::matmul(q, k.t());
  const auto weights = torch::randn({3, 3});
  auto expected = torch::zeros({});
  for (const int s : {0, 2}) {
    for (int d = 0; d < 3; ++d) {
      const auto block = products.slice(0, samples.starts[size_t(s)], samples.starts[size_t(s) + 1])
                             .slice(1, documents.starts[size_t(d)], documents.starts[size_t(d) + 1]);
      EXPECT_FLOAT_EQ(scores[s][d].item<float>(), block.max().item<float>());
      expected = expected + block.max() * weights[s][d];
    }
  }
  for (int d = 0; d < 3; ++d) EXPECT_LE(scores[1][d].item<float>(), kNoScore / 2);
  const auto want = torch::autograd::grad({expected}, {q, k});
  auto mask = torch::ones({3, 3});
  mask[1].zero_();
  const auto got = torch::autograd::grad({(scores * weights * mask).sum()}, {q, k});
  EXPECT_TRUE(torch::allclose(got[0], want[0], 1e-5, 1e-6));
  EXPECT_TRUE(torch::allclose(got[1], want[1], 1e-5, 1e-6));
}

/// Both scores and their gradients against a plain composition in float64.
class BothScores : public OnDevice {};

TEST_P(BothScores, EqualAPlainCompositionInFloat64) {
  const uint64_t seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  torch::manual_seed(seed);
  std::mt19937_64 random(seed);
  // Sample 2 has no routed token; documents of 1 to 12 chunks, one of 300: numbers beyond a byte.
  std::vector<int64_t> sample_starts{0}, document_starts{0};
  for (const int64_t n : {7, 1, 0, 40, 3}) sample_starts.push_back(sample_starts.back() + n);
  for (int d = 0; d < 30; ++d)
    document_starts.push_back(document_starts.back() + 1 + static_cast<int64_t>(random() % 12));
  for (const bool wide : {false, true}) {
    if (wide) document_starts.push_back(document_starts.back() + 300);
    const RowOwners samples = RowOwners::from(sample_starts, device_),
                    documents = RowOwners::from(document_starts, device_);
    const auto q = torch::randn({sample_starts.back(), 24}), k = torch::randn({document_starts.back(), 24});
    const auto best_weights = torch::randn({samples.size(), documents.size()});
    const auto late_weights = torch::randn({samples.size(), documents.size()});
    const auto q64 = q.to(torch::kDouble).set_requires_grad(true), k64 = k.to(torch::kDouble).set_requires_grad(true);
    const auto products = torch::matmul(q64, k64.t());
    const auto q32 = q.to(device_).set_requires_grad(true), k32 = k.to(device_).set_requires_grad(true);
    const DocumentScores got = routing_scores(q32, samples, k32, documents);
    const auto best = got.best.to(torch::kCPU, torch::kDouble), late = got.late.to(torch::kCPU, torch::kDouble);
    auto expected = torch::zeros({}, torch::kDouble);
    for (int64_t s = 0; s < samples.size(); ++s) {
      for (int64_t d = 0; d < documents.size(); ++d) {
        if (s == 2) {
          EXPECT_EQ(late[s][d].item<double>(), 0);
          continue;
        }
        const auto block = products.slice(0, sample_starts[size_t(s)], sample_starts[size_t(s) + 1])
                               .slice(1, document_starts[size_t(d)], document_starts[size_t(d) + 1]);
        const auto by_token = std::get<0>(block.max(1));
        EXPECT_NEAR(best[s][d].item<double>(), by_token.max().item<double>(), 1e-4);
        EXPECT_NEAR(late[s][d].item<double>(), by_token.mean().item<double>(), 1e-4);
        expected = expected + by_token.max() * best_weights[s][d] + by_token.mean() * late_weights[s][d];
      }
    }
    const auto want = torch::autograd::grad({expected}, {q64, k64});
    const auto there = torch::ones({samples.size(), 1}).to(device_);
    there[2].zero_();
    const auto loss = (got.best * best_weights.to(device_) * there + got.late * late_weights.to(device_)).sum();
    const auto gradients = torch::autograd::grad({loss}, {q32, k32});
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_TRUE(torch::allclose(gradients[i].to(torch::kCPU, torch::kDouble), want[i], 1e-4, 1e-4)) << i << wide;
    }
    // One of the two alone.
    const auto only_late = torch::autograd::grad(
        {(routing_scores(q32, samples, k32, documents).late * late_weights.to(device_)).sum()}, {q32, k32});
    const auto only_best = torch::autograd::grad(
        {(routing_scores(q32, samples, k32, documents).best * best_weights.to(device_) * there).sum()}, {q32, k32});
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_TRUE(torch::allclose(only_late[i] + only_best[i], gradients[i], 1e-4, 1e-4));
      EXPECT_GT(only_late[i].norm().item<double>(), 0.1);
    }
  }
}

MSA_ON_EVERY_DEVICE(BothScores);

TEST(BestAgain, RanksTheBestOfTheFirstByTheSecond) {
  const auto first = torch::tensor({{3.0f, 2.0f, 1.0f, 0.0f}}), second = torch::tensor({{0.0f, 1.0f, 2.0f, 9.0f}});
  EXPECT_EQ(best_again(first, second, 3).argmax(1).item<int64_t>(), 2);
  EXPECT_EQ(best_again(first, second, 9).argmax(1).item<int64_t>(), 3);
}

TEST(Attention, EqualsOneSequenceAtATimeWithAPrefix) {
  torch::manual_seed(4);
  const auto q = torch::randn({5, 4, 8}), k = torch::randn({9, 2, 8}), v = torch::randn({9, 2, 8});
  Segments s;
  s.q_starts = torch::tensor({0, 2, 5}, torch::kInt);
  s.k_starts = torch::tensor({0, 4, 9}, torch::kInt);
  s.longest_q = 3;
  s.longest_k = 5;
  const auto out = ragged_attention(q, k, v, s);
  for (int t = 0; t < 5; ++t) {
    const int first = t < 2 ? 0 : 4, last = t < 2 ? 3 + t : 5 + t;  // the last token of a sequence sees all its keys
    for (int h = 0; h < 4; ++h) {
      const auto keys = k.slice(0, first, last).select(1, h / 2), values = v.slice(0, first, last).select(1, h / 2);
      const auto p = torch::softmax(torch::matmul(keys, q[t][h]) / std::sqrt(8.0), 0);
      EXPECT_TRUE(torch::allclose(out[t][h], torch::matmul(p, values), 1e-4, 1e-5)) << t << " " << h;
    }
  }
}

TEST(RoutingLoss, EquationFiveByHand) {
  RoutingTargets t;
  t.positive = torch::tensor({{1, 1, 0, 0}, {0, 0, 0, 0}}).to(torch::kBool);
  t.negative = torch::tensor({{0, 0, 1, 0}, {1, 1, 1, 1}}).to(torch::kBool);  // document 3 is ignored by sample 0
  t.counted = torch::tensor({{1.0f}, {0.0f}});
  const auto scores = torch::tensor({{0.5f, 0.1f, 0.3f, 0.9f}, {0.f, 0.f, 0.f, 0.f}});
  const auto term = [](double positive, double negative) {
    return -std::log(std::exp(positive / 0.1) / (std::exp(positive / 0.1) + std::exp(negative / 0.1)));
  };
  const double expected = (term(0.5, 0.3) + term(0.1, 0.3)) / 2;
  EXPECT_NEAR(routing_loss({scores}, t, RoutingLoss::kEquation5, 0.1).item<double>(), expected, 1e-5);
}

TEST(RoutingLoss, NoNegativesGiveNoLossAndNoNan) {
  RoutingTargets t;
  t.positive = torch::ones({1, 2}, torch::kBool);
  t.negative = torch::zeros({1, 2}, torch::kBool);
  t.counted = torch::ones({1, 1});
  const auto scores = torch::zeros({1, 2}).set_requires_grad(true);
  const auto loss = routing_loss({scores}, t, RoutingLoss::kEquation5, 0.1);
  loss.backward();
  EXPECT_EQ(loss.item<float>(), 0.0f);
  EXPECT_TRUE(scores.grad().isfinite().all().item<bool>());
}

TEST(Distillation, VanishesOnlyWhereRouterAndTeacherAgree) {
  RoutingTargets t;
  const float none = -std::numeric_limits<float>::infinity();
  t.teacher = torch::tensor({{2.0f, 1.0f, none}, {none, none, none}});
  const auto agree = torch::tensor({{0.2f, 0.1f, 0.9f}, {0.f, 0.f, 0.f}});
  const auto swapped = torch::tensor({{0.1f, 0.2f, 0.9f}, {0.f, 0.f, 0.f}});
  const auto loss = [&](const torch::Tensor& s) { return distillation_loss({s}, t, 0.1, 1.0).item<double>(); };
  const double p = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(loss(agree), -(p * std::log(p) + (1 - p) * std::log(1 - p)), 1e-5);  // the teacher's entropy
  EXPECT_GT(loss(swapped), loss(agree) + 0.1);
}

/// Random documents and samples over a tiny model.
class Step : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::write_tiny_model(folder_.path());
    parts_.rank = 4;
    parts_.alpha = 8;
    backbone_ = std::make_unique<Backbone>(folder_.path().string(), "", parts_, torch::kFloat, torch::kCPU, 1);
    torch::manual_seed(5);
    torch::NoGradGuard no_gradients;
    // B starts at zero, where A has no gradient: start elsewhere.
    for (const auto& [name, leaf] : backbone_->parameters().leaves()) leaf.add_(torch::randn_like(leaf) * 0.02);
  }

  std::vector<int32_t> tokens(int n) {
    std::vector<int32_t> out;
    for (int i = 0; i < n; ++i) out.push_back(static_cast<int32_t>(random_() % 256));
    return out;
  }

  Batch random_batch(int documents, int samples) {
    Batch b;
    const auto push = [](std::vector<int32_t>& to, std::vector<int64_t>& starts, const std::vector<int32_t>& more) {
      if (starts.empty()) starts.push_back(0);
      to.insert(to.end(), more.begin(), more.end());
      starts.push_back(static_cast<int64_t>(to.size()));
    };
    push(b.tokens, b.starts, tokens(6));
    for (int i = 0; i < documents; ++i) push(b.tokens, b.starts, tokens(3 + static_cast<int>(random_() % 30)));
    b.n_trained = documents;
    b.positive_starts = {0};
    for (int i = 0; i < samples; ++i) {
      const auto sample = tokens(5 + static_cast<int>(random_() % 9));
      push(b.sample_tokens, b.sample_starts, sample);
      for (size_t t = 0; t < sample.size(); ++t) {
        b.routed.push_back(t < 4 ? 1 : 0);
        b.predicted.push_back(t >= 4 ? 1 : 0);
      }
      b.kinds.push_back(SampleKind::kRetrieve);
      b.positives.push_back(i % documents);
      b.positive_starts.push_back(i + 1);
    }
    b.top_k_documents = 3;
    return b;
  }

  /// Three samples, six documents, a teacher that scored them all.
  Batch taught_batch() {
    Batch b = random_batch(6, 3);
    b.teacher_starts = {0};
    for (int32_t s = 0; s < 3; ++s) {
      for (int32_t d = 0; d < 6; ++d) {
        b.teacher_documents.push_back(d);
        b.teacher_scores.push_back(0.1f * static_cast<float>((s + d) % 6));
      }
      b.teacher_starts.push_back(6 * (s + 1));
    }
    return b;
  }

  StepResult run(const Batch& batch, const StepOptions& options = {}) {
    const Network network(backbone_->config(), torch::kFloat);
    return run_step(network, backbone_->effective(), StepInput::from(batch, backbone_->config(), torch::kCPU), options);
  }

  std::vector<torch::Tensor> gradients(const Batch& batch, const StepOptions& options = {}) {
    backbone_->parameters().zero_gradients();
    run(batch, options).loss.backward();
    std::vector<torch::Tensor> out;
    for (const auto& group : backbone_->parameters().groups()) out.push_back(group.gradients.clone());
    return out;
  }

  testing::TemporaryFolder folder_;
  TrainedParts parts_;
  std::unique_ptr<Backbone> backbone_;
  std::mt19937 random_{7};
};

TEST_F(Step, RecomputingChangesNoGradient) {
  const Batch batch = random_batch(6, 4);
  const auto kept = gradients(batch);
  for (const Recompute mode : {Recompute::kKeep, Recompute::kOffload}) {
    StepOptions options;
    options.recompute = mode;
    const auto again = gradients(batch, options);
    for (size_t i = 0; i < kept.size(); ++i) {
      EXPECT_GT(kept[i].norm().item<double>(), 0);
      EXPECT_TRUE(torch::allclose(kept[i], again[i], 1e-4, 1e-7));
    }
  }
}

TEST_F(Step, SamplesDoNotSeeEachOther) {
  const Batch both = random_batch(5, 2);
  Batch first = both, second = both;
  const auto cut = both.sample_starts[1];
  const auto keep = [](Batch& b, int64_t begin, int64_t end, int sample) {
    const auto slice = [&](auto& v) { v = {v.begin() + begin, v.begin() + end}; };
    slice(b.sample_tokens), slice(b.routed), slice(b.predicted);
    b.sample_starts = {0, end - begin};
    b.kinds = {b.kinds[0]};
    b.positives = {b.positives[static_cast<size_t>(sample)]};
    b.positive_starts = {0, 1};
  };
  keep(first, 0, cut, 0);
  keep(second, cut, both.sample_starts[2], 1);
  const StepResult together = run(both), a = run(first), b = run(second);
  EXPECT_NEAR(together.aux_loss.item<double>(), (a.aux_loss.item<double>() + b.aux_loss.item<double>()) / 2, 1e-5);
  const double n_a = static_cast<double>(first.predicted.size() - 4);
  const double n_b = static_cast<double>(second.predicted.size() - 4);
  EXPECT_NEAR(together.lm_loss.item<double>(),
              (a.lm_loss.item<double>() * n_a + b.lm_loss.item<double>() * n_b) / (n_a + n_b), 1e-5);
}

TEST_F(Step, CitesWeighAsTheyAreTold) {
  Batch batch = random_batch(5, 3);
  batch.kinds[1] = SampleKind::kAnswer;
  double n_cites = 0, n_texts = 0;
  for (size_t s = 0; s < 3; ++s) {
    (s == 1 ? n_texts : n_cites) += static_cast<double>(batch.sample_starts[s + 1] - batch.sample_starts[s] - 4);
  }
  for (const double weight : {0.0, 0.3, 1.0}) {
    StepOptions options;
    options.cite_weight = weight;
    const StepResult r = run(batch, options);
    const double cite = r.cite_loss.item<double>(), text = r.text_loss.item<double>();
    EXPECT_GT(std::abs(cite - text), 1e-3);
    EXPECT_NEAR(r.lm_loss.item<double>(), (n_texts * text + weight * n_cites * cite) / (n_texts + weight * n_cites),
                1e-5);
  }
}

TEST_F(Step, ForwardOnlyDocumentsScoreAlikeAndGetNoGradient) {
  Batch batch = random_batch(6, 3);
  const StepResult all = run(batch);
  const auto full = gradients(batch);
  batch.n_trained = 3;
  const StepResult part = run(batch);
  EXPECT_NEAR(all.aux_loss.item<double>(), part.aux_loss.item<double>(), 1e-5);
  EXPECT_NEAR(all.lm_loss.item<double>(), part.lm_loss.item<double>(), 1e-5);
  const auto fewer = gradients(batch);
  EXPECT_FALSE(torch::allclose(full[0], fewer[0], 1e-4, 1e-7));
}

TEST_F(Step, PlainTextAndGivenDocumentsAttendToNoMemory) {
  for (const SampleKind kind : {SampleKind::kLanguage, SampleKind::kRead}) {
    Batch batch = random_batch(4, 1);
    batch.kinds = {kind};
    std::fill(batch.routed.begin(), batch.routed.end(), uint8_t{0});
    batch.positives.clear();
    batch.positive_starts = {0, 0};
    const StepResult here = run(batch);
    EXPECT_EQ(here.aux_loss.item<float>(), 0.0f);
    for (auto& t : batch.tokens) t = (t + 1) % 256;  // another memory, another head
    Batch other = batch;
    std::copy_n(random_batch(1, 1).tokens.begin(), 0, other.tokens.begin());
    for (int i = 0; i < 6; ++i) other.tokens[size_t(i)] = (other.tokens[size_t(i)] + 255) % 256;  // the head as before
    EXPECT_NEAR(run(other).lm_loss.item<double>(), here.lm_loss.item<double>(), 1e-6);
  }
}

TEST_F(Step, ReconstructionSeesItsOwnDocumentOnly) {
  Batch batch = random_batch(4, 1);
  batch.kinds = {SampleKind::kReconstruct};
  batch.positives = {2};
  const double before = run(batch).lm_loss.item<double>();
  Batch others = batch;
  for (int64_t i = batch.starts[1]; i < batch.starts[3]; ++i) others.tokens[size_t(i)] ^= 1;  // documents 0 and 1
  EXPECT_NEAR(run(others).lm_loss.item<double>(), before, 1e-6);
  for (int64_t i = batch.starts[3]; i < batch.starts[4]; ++i) others.tokens[size_t(i)] ^= 1;  // document 2
  EXPECT_GT(std::abs(run(others).lm_loss.item<double>() - before), 1e-6);
}

TEST_F(Step, TheMeanScoreHasALossOfItsOwn) {
  const Batch batch = random_batch(6, 3);
  StepOptions options;
  EXPECT_FALSE(run(batch, options).mean_loss.defined());
  options.mean_weight = 0.5;
  options.mean_tau = options.tau;
  const StepResult r = run(batch, options);
  EXPECT_NEAR(r.loss.item<double>(),
              r.lm_loss.item<double>() + 0.1 * r.aux_loss.item<double>() + 0.05 * r.mean_loss.item<double>(), 1e-5);
  // The loss is convex in the scores: of the mean it is at most the mean of the layers'.
  EXPECT_LE(r.mean_loss.item<double>(), r.aux_loss.item<double>() + 1e-6);
}

TEST_F(Step, LateScoresHaveLossesOfTheirOwn) {
  const Batch batch = taught_batch();
  StepOptions options;
  const StepResult without = run(batch, options);
  EXPECT_FALSE(without.late_loss.defined() || without.late_distillation.defined());
  const auto before = gradients(batch, options);
  options.late_weight = 0.5;
  options.late_distillation = 0.25;
  options.teacher_tau = 0.1;
  const StepResult r = run(batch, options);
  EXPECT_GT(r.late_loss.item<double>(), 0);
  EXPECT_NEAR(
      r.loss.item<double>(),
      without.loss.item<double>() + 0.05 * r.late_loss.item<double>() + 0.25 * r.late_distillation.item<double>(),
      1e-5);
  const auto after = gradients(batch, options);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_FALSE(torch::allclose(before[i], after[i], 1e-3, 1e-6));
}

TEST_F(Step, TheCitedScoreIsTheSumOfBothEachOverItsTemperature) {
  const Batch batch = taught_batch();
  StepOptions options;
  options.mean_weight = options.late_weight = options.late_distillation = 1;
  options.teacher_tau = 0.1;
  options.mean_tau = options.late_tau = 0.05;
  const StepResult without = run(batch, options);
  EXPECT_FALSE(without.cited_loss.defined() || without.cited_distillation.defined());
  options.cited_weight = 0.5;
  options.cited_distillation = 0.25;
  const StepResult r = run(batch, options);
  EXPECT_NEAR(
      r.loss.item<double>(),
      without.loss.item<double>() + 0.05 * r.cited_loss.item<double>() + 0.25 * r.cited_distillation.item<double>(),
      1e-5);
  EXPECT_GT(std::abs(r.cited_loss.item<double>() - r.mean_loss.item<double>()), 1e-4);
  // A score over a high temperature says nothing: the other is left.
  StepOptions mean_alone = options, late_alone = options;
  mean_alone.late_tau = late_alone.mean_tau = 1e6;
  const StepResult m = run(batch, mean_alone), l = run(batch, late_alone);
  EXPECT_NEAR(m.cited_loss.item<double>(), m.mean_loss.item<double>(), 1e-4);
  EXPECT_NEAR(m.cited_distillation.item<double>(), m.distillation.item<double>(), 1e-4);
  EXPECT_NEAR(l.cited_loss.item<double>(), l.late_loss.item<double>(), 1e-4);
  EXPECT_NEAR(l.cited_distillation.item<double>(), l.late_distillation.item<double>(), 1e-4);
}

TEST_F(Step, CandidatesAreJudgedEachAloneAndAmongTheirGroup) {
  Batch batch = random_batch(6, 8);
  batch.rerank_starts = {3, 6, 8};  // samples 3 to 5 and 6 to 7
  for (size_t i = 3; i < 8; ++i) {
    batch.kinds[i] = SampleKind::kRerank;
    for (auto t = batch.sample_starts[i]; t < batch.sample_starts[i + 1]; ++t) {
      batch.routed[static_cast<size_t>(t)] = batch.predicted[static_cast<size_t>(t)] = 0;
    }
  }
  batch.positives.resize(3);
  std::fill(batch.positive_starts.begin() + 3, batch.positive_starts.end(), 3);
  StepOptions options;
  options.rerank_yes = 121;
  options.rerank_no = 110;
  options.rerank_weight = 0;
  const StepResult without = run(batch, options);
  options.rerank_weight = 0.5;
  const StepResult r = run(batch, options);
  EXPECT_NEAR(r.loss.item<double>(), without.loss.item<double>() + 0.5 * r.rerank_loss.item<double>(), 1e-5);

  // A sample by itself, without any document of the pool: its last token's logits.
  const Network network(backbone_->config(), torch::kFloat);
  const auto odds_of = [&](size_t i) {
    Batch one = random_batch(2, 1);
    one.tokens.assign(batch.tokens.begin(), batch.tokens.begin() + batch.starts[1]);  // the same head
    one.starts = {0, batch.starts[1]};
    for (int d = 0; d < 2; ++d) {
      const auto document = tokens(5);
      one.tokens.insert(one.tokens.end(), document.begin(), document.end());
      one.starts.push_back(static_cast<int64_t>(one.tokens.size()));
    }
    one.sample_tokens.assign(batch.sample_tokens.begin() + batch.sample_starts[i],
                             batch.sample_tokens.begin() + batch.sample_starts[i + 1]);
    one.sample_starts = {0, static_cast<int64_t>(one.sample_tokens.size())};
    one.routed.assign(one.sample_tokens.size(), 0);
    one.predicted = one.routed;
    one.kinds = {SampleKind::kLanguage};
    one.positives.clear();
    one.positive_starts = {0, 0};
    const StepInput input = StepInput::from(one, backbone_->config(), torch::kCPU);
    const NetworkTensors w = backbone_->effective();
    const auto memory = network.encode(w, input.pool, input.chunks, Recompute::kNone);
    const auto hidden = network.query(w, memory, input.documents, input.samples, {}).hidden;
    const auto logits = network.logits(w, hidden.slice(0, hidden.size(0) - 1));
    return logits[0][121].item<double>() - logits[0][110].item<double>();
  };
  std::vector<double> odds;
  for (size_t i = 3; i < 8; ++i) odds.push_back(odds_of(i));
  const auto e = [&](size_t i) { return std::exp(odds[i]); };
  const double among = (-std::log(e(0) / (e(0) + e(1) + e(2))) - std::log(e(3) / (e(3) + e(4)))) / 2;
  double alone = 0;
  for (size_t i = 0; i < 5; ++i) alone += std::log1p(std::exp(i == 0 || i == 3 ? -odds[i] : odds[i])) / 5;
  EXPECT_NEAR(r.rerank_loss.item<double>(), among + alone, 1e-4);
  const int firsts = (odds[0] >= std::max(odds[1], odds[2]) ? 1 : 0) + (odds[3] >= odds[4] ? 1 : 0);
  EXPECT_NEAR(r.rerank_1.item<double>(), firsts / 2.0, 1e-6);
}

TEST_F(Step, LayerWeightsAreTrainedWrittenAndTakenUpAgain) {
  parts_.layer_weights = true;
  backbone_ = std::make_unique<Backbone>(folder_.path().string(), "", parts_, torch::kFloat, torch::kCPU, 1);
  EXPECT_TRUE(torch::allclose(backbone_->effective().layer_weights, torch::full({2}, 0.5)));
  const torch::Tensor logits = backbone_->parameters().get("router_layer_logits");
  {
    torch::NoGradGuard no_gradients;
    logits.copy_(torch::tensor({1.0f, -0.5f}));
  }
  const Batch batch = random_batch(6, 3);
  StepOptions options;
  options.aux_weight = options.mean_weight = 1;
  gradients(batch, options);
  const Network network(backbone_->config(), torch::kFloat);
  const NetworkTensors w = backbone_->effective();
  const StepInput input = StepInput::from(batch, backbone_->config(), torch::kCPU);
  const auto memory = network.encode(w, input.pool, input.chunks, Recompute::kNone);
  const auto scores = network.query(w, memory, input.documents, input.samples, {input.top_k, {}}).scores;
  ASSERT_EQ(scores.size(), 2u);
  const auto own = torch::tensor({1.0, -0.5}, torch::kDouble).set_requires_grad(true);
  const auto p = own.exp() / own.exp().sum();
  const auto mean = scores[0].detach() * p[0] + scores[1].detach() * p[1];
  routing_loss({mean}, input.targets, options.routing_loss, options.mean_tau).backward();
  EXPECT_GT(own.grad().abs().max().item<double>(), 1e-4);
  EXPECT_TRUE(torch::allclose(logits.grad().to(torch::kDouble), own.grad(), 1e-3, 1e-6));

  const std::string out = (folder_.path() / "out").string(), file = out + "/adapter.safetensors";
  backbone_->export_to(out, DType::kF16);
  const SafetensorsFile written = SafetensorsFile::open(file);
  const msa::Tensor stored = written.get("router_layer_weights");
  ASSERT_EQ(stored.dtype, DType::kF32);
  EXPECT_NEAR(static_cast<const float*>(stored.data)[0], p[0].item<double>(), 1e-6);
  EXPECT_NEAR(static_cast<const float*>(stored.data)[0] + static_cast<const float*>(stored.data)[1], 1, 1e-6);
  for (const bool trained : {true, false}) {
    parts_.layer_weights = trained;
    const Backbone again(folder_.path().string(), file, parts_, torch::kFloat, torch::kCPU, 1);
    EXPECT_EQ(again.parameters().contains("router_layer_logits"), trained);
    EXPECT_TRUE(torch::allclose(again.effective().layer_weights, w.layer_weights, 1e-5, 1e-6));
    again.export_to(out, DType::kF16);
    EXPECT_NE(SafetensorsFile::open(file).find("router_layer_weights"), nullptr);
  }
  float broken[] = {1.0f, 0.0f};
  write_safetensors(file, {{"router_layer_weights", msa::Tensor(broken, DType::kF32, {2})}});
  EXPECT_THROW(Backbone(folder_.path().string(), file, parts_, torch::kFloat, torch::kCPU, 1), Error);
}

class StepOnDevice : public Step, public ::testing::WithParamInterface<const char*> {};

TEST_P(StepOnDevice, Bf16GoesTheSameWayAsFloat32) {
  const torch::Device device(GetParam());
  if (device.is_cuda() && !torch::cuda::is_available()) GTEST_SKIP() << "libtorch finds no CUDA device";
  const Batch batch = random_batch(12, 8);
  StepOptions options;
  options.attend_gold = true;  // a selection that rounding does not turn
  auto slice = batch;
  slice.top_k_documents = 1;
  const double exact_loss = run(slice, options).loss.item<double>();
  const auto exact = gradients(slice, options);

  Backbone here(folder_.path().string(), "", parts_, torch::kBFloat16, device, 1);
  {
    torch::NoGradGuard no_gradients;
    for (const auto& [name, leaf] : here.parameters().leaves()) leaf.copy_(backbone_->parameters().get(name));
  }
  const Network network(here.config(), torch::kBFloat16);
  const StepResult r = run_step(network, here.effective(), StepInput::from(slice, here.config(), device), options);
  r.loss.backward();
  EXPECT_NEAR(r.loss.item<double>(), exact_loss, 0.02 * exact_loss);
  for (size_t i = 0; i < exact.size(); ++i) {
    const auto got = here.parameters().groups()[i].gradients.to(torch::kCPU);
    // Rounding turns the best chunk of some pairs of question and document.
    EXPECT_GT(torch::cosine_similarity(got, exact[i], 0).item<double>(), 0.9) << here.parameters().groups()[i].name;
  }
}

MSA_ON_EVERY_DEVICE(StepOnDevice);

TEST_F(Step, GoldIsAttendedWhenAskedFor) {
  Batch batch = random_batch(8, 4);
  batch.top_k_documents = 1;
  StepOptions gold;
  gold.attend_gold = true;
  const double by_score = run(batch).lm_loss.item<double>(), by_gold = run(batch, gold).lm_loss.item<double>();
  EXPECT_NE(by_score, by_gold);
  batch.top_k_documents = 8;
  EXPECT_NEAR(run(batch).lm_loss.item<double>(), run(batch, gold).lm_loss.item<double>(), 1e-6);
}

TEST(Recomputed, UndefinedInputsAndUnusedOutputs) {
  const auto x = torch::randn({3}).set_requires_grad(true);
  const auto out = recomputed(
      [](const std::vector<torch::Tensor>& in) {
        return std::vector<torch::Tensor>{in[0] * 2, in[0].square()};
      },
      {x, torch::Tensor()}, Recompute::kKeep);
  out[1].sum().backward();
  EXPECT_TRUE(torch::allclose(x.grad(), 2 * x));
}

}  // namespace
}  // namespace msa::train
