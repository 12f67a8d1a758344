// The router against plain loops in double precision over random documents.
#include "router/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "../bank/bank_testing.h"

namespace msa {
namespace {

using testing::add;
using testing::Batch;
using ::testing::Each;
using ::testing::IsEmpty;
using testing::random_batch;
using testing::small_shape;

constexpr float kDead = -std::numeric_limits<float>::infinity();
constexpr int kHeads = 6;  // three to a group

float at(const Tensor& rows, int64_t row, int64_t column) {
  return rows.dtype == DType::kF32 ? rows.row<float>(row)[column] : to_float(rows.row<bf16>(row)[column]);
}

/// Section 1 of the design, word by word: head by head, token by token, chunk by chunk. For each token the largest
/// score of any chunk [n_routed].
std::vector<double> reference_scores(const Segment& segment, int64_t document, int layer, const Tensor& q,
                                     const BankShape& shape, Similarity similarity) {
  const int64_t d = shape.head_dim;
  const Tensor keys = segment.keys(layer);
  const auto starts = segment.chunk_starts();
  std::vector<double> best(static_cast<size_t>(q.rows()), -std::numeric_limits<double>::infinity());
  for (int64_t chunk = starts[static_cast<size_t>(document)]; chunk < starts[static_cast<size_t>(document) + 1];
       ++chunk) {
    for (int64_t t = 0; t < q.rows(); ++t) {
      double mean = 0;
      for (int h = 0; h < kHeads; ++h) {
        double dot = 0;
        double squares = 0;
        for (int64_t i = 0; i < d; ++i) {
          const double x = at(q, t, h * d + i);
          dot += x * at(keys, chunk, (h / (kHeads / shape.kv_heads)) * d + i);
          squares += x * x;
        }
        const double scale = similarity == Similarity::kCosine ? 1 / std::max(std::sqrt(squares), 1e-12)
                                                               : 1 / std::sqrt(static_cast<double>(d));
        mean += dot * scale / kHeads;
      }
      best[static_cast<size_t>(t)] = std::max(best[static_cast<size_t>(t)], mean);
    }
  }
  return best;
}

double reference_score(const Segment& segment, int64_t document, int layer, const Tensor& q, const BankShape& shape,
                       Similarity similarity) {
  const std::vector<double> of_tokens = reference_scores(segment, document, layer, q, shape, similarity);
  return *std::max_element(of_tokens.begin(), of_tokens.end());
}

/// Raw projections [n, kHeads·d] as the router takes them.
class Folded {
 public:
  Folded(const Tensor& q, Similarity similarity, int kv_heads, int heads = kHeads, float weight = 1) {
    Context context(1);
    q_ = fold_query(context, q, {similarity, heads, kv_heads, weight}, memory_);
  }
  operator const Tensor&() const { return q_; }

 private:
  Buffer memory_;
  Tensor q_;
};

struct Case {
  DType dtype;
  Similarity similarity;
  int64_t n_routed;
};

class RouterTest : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Types, RouterTest,
                         ::testing::Values(Case{DType::kF32, Similarity::kCosine, 5},
                                           Case{DType::kBF16, Similarity::kCosine, 1},
                                           Case{DType::kBF16, Similarity::kScaledDot, 32},
                                           Case{DType::kF32, Similarity::kScaledDot, 7}));

TEST_P(RouterTest, ScoresAsThePlainLoop) {
  const auto [dtype, similarity, n_routed] = GetParam();
  std::mt19937 random(17);
  const auto bank = Bank::in_memory(small_shape(dtype));
  for (const int64_t count : {1, 40, 7}) ASSERT_TRUE(add(*bank, random_batch(*bank, count, random)).committed());
  for (const DocumentId dead : {1, 5, 41, 48}) ASSERT_TRUE(bank->remove(dead));
  const Router router(bank->snapshot());
  ASSERT_EQ(router.n_slots(), 48);
  Context context(2);
  Buffer memory;
  testing::fill(memory, n_routed * kHeads * 10, DType::kF32, random);
  const Tensor q(memory.data(), DType::kF32, {n_routed, kHeads * 10});
  const Folded folded(q, similarity, bank->shape().kv_heads);
  std::vector<float> scores;
  for (int layer = 0; layer < 3; ++layer) {
    router.score(context, layer, folded, scores);
    ASSERT_EQ(scores.size(), 48u);
    for (int64_t slot = 0; slot < 48; ++slot) {
      const ScoredDocument place = router.slot(slot);
      ASSERT_EQ(place.id, slot + 1);
      const Segment& segment = *router.snapshot().segments[static_cast<size_t>(place.segment)];
      ASSERT_EQ(segment.id(place.index), place.id);
      if (!bank->snapshot()->is_live(place.id)) {
        EXPECT_EQ(scores[static_cast<size_t>(slot)], kDead);
        continue;
      }
      const double want = reference_score(segment, place.index, layer, q, bank->shape(), similarity);
      // Kernels for BF16 keys may round the query to BF16 too: 2^-8 relative to the terms of the sum.
      const double tolerance = dtype == DType::kF32 ? 1e-5 : 1e-2 * std::max(1.0, std::abs(want));
      EXPECT_NEAR(scores[static_cast<size_t>(slot)], want, tolerance);
    }
  }
}

TEST_P(RouterTest, LateScoresAreMeansOverTokens) {
  const auto [dtype, similarity, n_routed] = GetParam();
  std::mt19937 random(19);
  const auto bank = Bank::in_memory(small_shape(dtype));
  for (const int64_t count : {1, 20}) ASSERT_TRUE(add(*bank, random_batch(*bank, count, random)).committed());
  const Router router(bank->snapshot());
  Buffer memory;
  testing::fill(memory, n_routed * kHeads * 10, DType::kF32, random);
  const Tensor q(memory.data(), DType::kF32, {n_routed, kHeads * 10});
  const Folded folded(q, similarity, bank->shape().kv_heads);
  std::vector<ScoredDocument> documents;
  for (const int64_t slot : {7, 0, 20, 7}) documents.push_back(router.slot(slot));
  for (int layer = 0; layer < 3; ++layer) {
    const std::vector<float> scores = router.late_scores(layer, folded, documents);
    ASSERT_EQ(scores.size(), documents.size());
    for (size_t i = 0; i < documents.size(); ++i) {
      const ScoredDocument& d = documents[i];
      const Segment& segment = *router.snapshot().segments[static_cast<size_t>(d.segment)];
      double want = 0;
      for (const double best : reference_scores(segment, d.index, layer, q, bank->shape(), similarity)) want += best;
      EXPECT_NEAR(scores[i], want / static_cast<double>(n_routed), 1e-5 * std::max(1.0, std::abs(want)));
    }
  }
  EXPECT_THAT(router.late_scores(0, folded, {}), IsEmpty());
}

TEST(RouterWeights, MultiplyTheScoresOfTheirLayer) {
  std::mt19937 random(29);
  const auto bank = Bank::in_memory(small_shape());
  ASSERT_TRUE(add(*bank, random_batch(*bank, 9, random)).committed());
  const std::vector<float> weights{0.5f, 2.0f, 0.5f};
  const Router router(bank->snapshot());
  const int kv_heads = bank->shape().kv_heads;
  Context context(2);
  Buffer memory;
  testing::fill(memory, 4 * kHeads * 10, DType::kF32, random);
  const Tensor q(memory.data(), DType::kF32, {4, kHeads * 10});
  std::vector<float> before, after;
  const std::vector<ScoredDocument> two{router.slot(3), router.slot(8)};
  for (int layer = 0; layer < 3; ++layer) {
    const float weight = weights[static_cast<size_t>(layer)];
    const Folded plain(q, Similarity::kCosine, kv_heads), weighted(q, Similarity::kCosine, kv_heads, kHeads, weight);
    router.score(context, layer, plain, before);
    router.score(context, layer, weighted, after);
    for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(after[i], weight * before[i]);  // powers of two: exact
    const std::vector<float> late = router.late_scores(layer, plain, two),
                             late_weighted = router.late_scores(layer, weighted, two);
    for (size_t i = 0; i < 2; ++i) EXPECT_EQ(late_weighted[i], weight * late[i]);
  }
}

TEST(RouterFilter, LeavesOutWhatIsNotAllowed) {
  std::mt19937 random(23);
  const auto bank = Bank::in_memory(small_shape());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(add(*bank, random_batch(*bank, 10, random)).committed());
  const Router router(bank->snapshot());
  Context context(1);
  Buffer memory;
  testing::fill(memory, 4 * kHeads * 10, DType::kF32, random);
  const Tensor q(memory.data(), DType::kF32, {4, kHeads * 10});
  const Folded folded(q, Similarity::kCosine, bank->shape().kv_heads);
  std::vector<uint8_t> allowed(30, 0);
  for (const size_t slot : {2, 11, 12, 29}) allowed[slot] = 1;
  std::vector<float> all;
  std::vector<float> some;
  router.score(context, 1, folded, all);
  router.score(context, 1, folded, some, allowed);
  for (size_t slot = 0; slot < 30; ++slot) EXPECT_EQ(some[slot], allowed[slot] != 0 ? all[slot] : kDead);
  const auto best = router.top_k(all, 16, allowed);
  const auto same = router.top_k(some, 16);
  ASSERT_EQ(best.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(best[i].id, same[i].id);
}

/// A bank of several segments whose documents' ids are given; scores are made up by the tests.
std::unique_ptr<Bank> bank_with(const std::vector<std::vector<DocumentId>>& segments, std::mt19937& random) {
  auto bank = Bank::in_memory(small_shape());
  bank->reserve_ids(1000);
  for (const std::vector<DocumentId>& ids : segments) {
    Batch batch = random_batch(*bank, static_cast<int64_t>(ids.size()), random);
    batch.ids = ids;
    EXPECT_TRUE(add(*bank, batch).committed());
  }
  return bank;
}

std::vector<std::pair<float, DocumentId>> reference_top_k(const Router& router, const std::vector<float>& scores,
                                                          int k) {
  std::vector<std::pair<float, DocumentId>> all;  // the score negated, so that plain order is the wanted order
  for (size_t slot = 0; slot < scores.size(); ++slot) {
    if (scores[slot] > kDead) all.emplace_back(-scores[slot], router.slot(static_cast<int64_t>(slot)).id);
  }
  std::sort(all.begin(), all.end());
  all.resize(std::min(all.size(), static_cast<size_t>(k)));
  return all;
}

TEST(RouterTopK, OrdersByScoreThenId) {
  std::mt19937 random(29);
  // The ids of the segments interleave: the lower id of a tie may lie in the later slot.
  const auto bank = bank_with({{2, 4, 6, 8, 30}, {1, 3, 5, 31, 32, 33}, {7, 9, 10}}, random);
  const Router router(bank->snapshot());
  std::vector<float> scores(14);
  for (int round = 0; round < 2000; ++round) {
    const int levels = 1 + static_cast<int>(random() % 6);
    for (float& score : scores) {
      const int level = static_cast<int>(random() % static_cast<unsigned>(levels + 1));
      score = level == levels ? kDead : static_cast<float>(level) - 2.0f;
    }
    const int k = static_cast<int>(random() % 18);
    const auto want = reference_top_k(router, scores, k);
    const auto got = router.top_k(scores, k);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i].id, want[i].second) << "round " << round << " place " << i;
      ASSERT_EQ(got[i].score, -want[i].first);
      const Segment& segment = *router.snapshot().segments[static_cast<size_t>(got[i].segment)];
      ASSERT_EQ(segment.id(got[i].index), got[i].id);
    }
  }
}

TEST(RouterTopK, SkipsWhatHasNoScore) {
  std::mt19937 random(31);
  const auto bank = bank_with({{1, 2, 3}}, random);
  const Router router(bank->snapshot());
  const std::vector<float> scores{std::numeric_limits<float>::quiet_NaN(), kDead, 0.5f};
  ASSERT_EQ(router.top_k(scores, 3).size(), 1u);
  EXPECT_EQ(router.top_k(scores, 3)[0].id, 3);
  EXPECT_THAT(router.top_k(scores, 0), IsEmpty());
  EXPECT_THAT(router.top_k(scores, -1), IsEmpty());
}

TEST(RouterEmpty, ScoresNothing) {
  std::mt19937 random(37);
  Context context(1);
  std::vector<float> scores{1, 2, 3};
  const auto bank = Bank::in_memory(small_shape());
  const int64_t width = bank->shape().row_elements();
  std::vector<float> q(static_cast<size_t>(width), 1.0f);
  const Router empty(bank->snapshot());
  empty.score(context, 0, Tensor(q.data(), DType::kF32, {1, width}), scores);
  EXPECT_THAT(scores, IsEmpty());
  EXPECT_THAT(empty.top_k(scores, 16), IsEmpty());

  ASSERT_TRUE(add(*bank, random_batch(*bank, 3, random)).committed());
  for (const DocumentId id : {1, 2, 3}) ASSERT_TRUE(bank->remove(id));
  const Router dead(bank->snapshot());
  dead.score(context, 0, Tensor(q.data(), DType::kF32, {1, width}), scores);
  EXPECT_THAT(scores, Each(kDead));
  EXPECT_THAT(dead.top_k(scores, 16), IsEmpty());
}

TEST(RouterFold, TakesZeroHeads) {
  std::vector<float> q(kHeads * 10, 0.0f);
  std::vector<float> folded(20, 1.0f);
  fold_query_heads(Tensor(q.data(), DType::kF32, {1, kHeads * 10}), {Similarity::kCosine, kHeads, 2},
                   Tensor(folded.data(), DType::kF32, {1, 20}));
  EXPECT_THAT(folded, Each(0.0f));
}

// More chunks than one tile, in documents that do not end where tiles end, one of them longer than a tile.
TEST(RouterTiles, CoverEveryDocument) {
  std::mt19937 random(41);
  BankShape shape = small_shape();
  shape.routing_layers = {0};
  shape.kv_heads = 1;
  shape.head_dim = 2;
  shape.chunk_tokens = 1;
  const auto bank = Bank::in_memory(shape);
  Batch batch;
  batch.ids = bank->reserve_ids(5);
  for (const int64_t chunks : {40000, 30000, 70000, 1, 65536}) {
    batch.documents.push_back(testing::random_document(shape, chunks, random));
    // The best chunk of each document is its last one, and better from document to document.
    bf16* keys = static_cast<bf16*>(batch.documents.back().keys[0].data());
    for (int64_t i = 0; i < 2 * chunks; ++i) keys[i] = to_bf16(-1.0f);
    keys[2 * chunks - 2] = keys[2 * chunks - 1] = to_bf16(static_cast<float>(batch.documents.size()));
    batch.inputs.push_back({"text", "", "", ""});
  }
  ASSERT_TRUE(add(*bank, batch).committed());
  const Router router(bank->snapshot());
  Context context(2);
  std::vector<float> q{1.0f, 1.0f};
  std::vector<float> scores;
  router.score(context, 0, Folded(Tensor(q.data(), DType::kF32, {1, 2}), Similarity::kScaledDot, 1, 1), scores);
  ASSERT_EQ(scores.size(), 5u);
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(scores[i], std::sqrt(2.0f) * static_cast<float>(i + 1), 0.05f);
}

}  // namespace
}  // namespace msa
