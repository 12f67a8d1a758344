// Documents encoded by several ranks: the bank that one process makes, or nothing.
#include "engine/bank_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "shard_testing.h"
#include "tiny_model.h"

namespace msa {
namespace {

class BankWriterTest : public ::testing::Test {
 protected:
  BankWriterTest() {
    testing::write_tiny_model(folder_.path() / "model");
    model_ = std::make_unique<Model>(context_, (folder_.path() / "model").string(), Precision::kF32);
    for (int i = 0; i < 11; ++i) texts_.push_back("Text " + std::string(static_cast<size_t>(1 + i * i % 60), 'x'));
  }

  std::unique_ptr<Bank> bank(const std::string& name) const {
    return Bank::create_or_open(folder_.path() / name, bank_shape(model_->transformer(), DType::kF32),
                                BankMode::kWrite);
  }

  AddResult add(Bank& bank, ShardDriver* ranks, size_t count) {
    const auto ids = bank.reserve_ids(static_cast<int64_t>(count));
    std::vector<DocumentInput> inputs;
    std::vector<DocumentTokens> tokens;
    for (size_t i = 0; i < count; ++i) {
      inputs.push_back({texts_[i], "doc" + std::to_string(ids[i]), "", ""});
      tokens.push_back(model_->prompts().document(ids[i], model_->tokenizer().encode(texts_[i])).tokens);
    }
    BankWriter writer(context_, *model_, bank, ranks);
    return writer.add(ids, inputs, tokens);
  }

  testing::RankBody encoding() {
    return [this](int, Exchange& exchange) { testing::serve(exchange, model_.get()); };
  }

  testing::TemporaryFolder folder_;
  Context context_{1};
  std::unique_ptr<Model> model_;
  std::vector<std::string> texts_;
};

/// The same documents with the same bytes, whichever segments they lie in.
void expect_same(const Bank& a, const Bank& b) {
  EXPECT_EQ(a.fingerprint(), b.fingerprint());
  EXPECT_EQ(b.verify(), std::vector<std::string>());
  const auto one = a.snapshot(), other = b.snapshot();
  ASSERT_EQ(one->n_documents(), other->n_documents());
  for (const DocumentRecord& record : a.list()) {
    const auto x = one->find(record.id), y = other->find(record.id);
    ASSERT_TRUE(x && y) << record.id;
    EXPECT_EQ(b.find(record.id)->n_tokens, record.n_tokens);
    for (int layer = 0; layer < one->shape.n_layers(); ++layer) {
      const Tensor left = one->segments[static_cast<size_t>(x->segment)]->content(layer, x->index);
      const Tensor right = other->segments[static_cast<size_t>(y->segment)]->content(layer, y->index);
      ASSERT_EQ(left.bytes(), right.bytes());
      EXPECT_EQ(std::memcmp(left.data, right.data, static_cast<size_t>(left.bytes())), 0) << record.id;
    }
  }
}

TEST_F(BankWriterTest, SeveralRanksMakeTheBankOfOne) {
  for (const size_t count : {1, 2, 11}) {
    const auto one = bank("one" + std::to_string(count));
    ASSERT_TRUE(add(*one, nullptr, count).committed());
    ASSERT_TRUE(add(*one, nullptr, count).committed());
    for (const int n : {2, 3, 5}) {
      SCOPED_TRACE(std::to_string(count) + " documents, " + std::to_string(n) + " ranks");
      const auto several = bank("several" + std::to_string(count) + "-" + std::to_string(n));
      testing::with_ranks(
          n,
          [&](ShardDriver* ranks) {
            ASSERT_TRUE(add(*several, ranks, count).committed());
            ASSERT_TRUE(add(*several, ranks, count).committed());
          },
          {}, encoding());
      expect_same(*one, *several);
    }
  }
}

TEST_F(BankWriterTest, ALostRankCostsNothingOrTheCommit) {
  const auto one = bank("one"), strict = bank("strict"), degraded = bank("degraded");
  ASSERT_TRUE(add(*one, nullptr, texts_.size()).committed());
  const testing::RankBody leaves = [this](int rank, Exchange& exchange) {
    if (rank == 2) return testing::serve(exchange, model_.get());
    Message message;
    EXPECT_EQ(exchange.receive(0, Exchange::Clock::now() + std::chrono::seconds(60), message), "");
  };
  EXPECT_THROW(testing::with_ranks(
                   3, [&](ShardDriver* ranks) { (void)add(*strict, ranks, texts_.size()); }, {}, leaves),
               Error);
  EXPECT_EQ(strict->size(), 0);
  testing::with_ranks(
      3, [&](ShardDriver* ranks) { EXPECT_TRUE(add(*degraded, ranks, texts_.size()).committed()); }, {.degraded = true},
      leaves);
  expect_same(*one, *degraded);
}

}  // namespace
}  // namespace msa
