// Ranks that die, hang, or cannot open their part: a clear error in time, or an answer that says what it lacks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>

#include "engine/encoder.h"
#include "engine/generator.h"
#include "engine/sharded_memory.h"
#include "shard_testing.h"
#include "tiny_model.h"

namespace msa {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

/// Passes messages on until `left` of them have come; then it acts dead: it returns or, while *hangs, does nothing.
class FailingExchange final : public Exchange {
 public:
  FailingExchange(Exchange& inner, int left, const std::atomic<bool>* hangs)
      : inner_(inner), left_(left), hangs_(hangs) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  void send(const std::vector<int>& to, const Message& message) override { inner_.send(to, message); }
  void give_up(int rank) override { inner_.give_up(rank); }
  std::string receive(int from, Clock::time_point deadline, Message& message) override {
    if (left_-- > 0) return inner_.receive(from, deadline, message);
    while (hangs_ != nullptr && *hangs_) std::this_thread::sleep_for(1ms);
    return "dead";
  }

 private:
  Exchange& inner_;
  int left_;
  const std::atomic<bool>* hangs_;
};

class ShardFailure : public ::testing::Test {
 protected:
  ShardFailure() {
    testing::write_tiny_model(folder_.path() / "model");
    model_ = std::make_unique<Model>(context_, (folder_.path() / "model").string(), Precision::kF32);
    bank_ = Bank::create_or_open(bank_path(), bank_shape(model_->transformer(), DType::kF32), BankMode::kWrite);
    for (int commit = 0; commit < 3; ++commit) {
      const auto ids = bank_->reserve_ids(6);
      std::vector<DocumentInput> inputs;
      std::vector<DocumentTokens> tokens;
      for (const DocumentId id : ids) {
        inputs.push_back({"Text of " + std::to_string(id * 7919) + ".", "doc" + std::to_string(id), "", ""});
        tokens.push_back(model_->prompts().document(id, model_->tokenizer().encode(inputs.back().text)).tokens);
      }
      const auto encoded = Encoder(model_->transformer(), DType::kF32).encode(context_, tokens);
      EXPECT_TRUE(bank_->add(ids, inputs, encoded).committed());
    }
  }

  std::filesystem::path bank_path() const { return folder_.path() / "bank"; }

  /// Rank 1 fails at its message number `left`.
  testing::RankBody failing(int left, const std::atomic<bool>* hangs = nullptr) const {
    return [left, hangs](int rank, Exchange& exchange) {
      if (rank != 1) return testing::serve(exchange);
      FailingExchange dead(exchange, left, hangs);
      EXPECT_THROW(testing::serve(dead), Error);
    };
  }

  Answer ask(ShardDriver* ranks) {
    AskOptions options;
    options.max_answer_tokens = 4;
    return Generator(*model_, *bank_, {}, ranks).ask(context_, "Who wrote it?", options);
  }

  testing::TemporaryFolder folder_;
  Context context_{1};
  std::unique_ptr<Model> model_;
  std::unique_ptr<Bank> bank_;
};

/// Message 0 holds, 1 begins, 2 and 3 route the two layers, with content; what comes then asks for the routed
/// documents.
constexpr int kMessages = 6;

TEST_F(ShardFailure, AnErrorNamesTheRankThatDied) {
  for (int left = 0; left < kMessages; ++left) {
    SCOPED_TRACE(left);
    try {
      testing::with_ranks(
          3, [&](ShardDriver* ranks) { ask(ranks); }, {}, failing(left));
      FAIL();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("rank 1: it has left the group"));
      EXPECT_THAT(error.fix(), HasSubstr("--degraded"));
    }
  }
}

TEST_F(ShardFailure, ADegradedAnswerSaysWhatItLacks) {
  for (int left = 0; left < kMessages; ++left) {
    SCOPED_TRACE(left);
    testing::with_ranks(
        3,
        [&](ShardDriver* ranks) {
          const Answer answer = ask(ranks);
          const auto snapshot = bank_->snapshot();
          const SlotRange lost = shard_ranges(*snapshot, 3)[1];
          EXPECT_EQ(answer.missing.documents, lost.size());
          EXPECT_EQ(answer.missing.of_documents, snapshot->n_documents());
          EXPECT_EQ(answer.missing.chunks, part_of(*snapshot, lost)->n_chunks());
          ASSERT_EQ(answer.missing.why.size(), 1u);
          EXPECT_THAT(answer.missing.why[0], HasSubstr("rank 1: it has left"));
          // The next question finds everything again, on the ranks that are left.
          const Answer next = ask(ranks), expected = ask(nullptr);
          EXPECT_FALSE(next.missing.any());
          EXPECT_EQ(next.text, expected.text);
          ASSERT_EQ(next.hops.front().routed.size(), expected.hops.front().routed.size());
          for (size_t i = 0; i < next.hops.front().routed.size(); ++i) {
            EXPECT_EQ(next.hops.front().routed[i].id, expected.hops.front().routed[i].id);
          }
        },
        {.degraded = true}, failing(left));
  }
}

TEST_F(ShardFailure, TheQuestionAfterALostOneLacksNothing) {
  for (int left = 0; left < kMessages; ++left) {
    SCOPED_TRACE(left);
    testing::with_ranks(
        3,
        [&](ShardDriver* ranks) {
          EXPECT_THROW(ask(ranks), LostRank);
          EXPECT_EQ(ranks->others(), std::vector<int>{2});
          const Answer next = ask(ranks);
          EXPECT_FALSE(next.missing.any());
          EXPECT_EQ(next.text, ask(nullptr).text);
        },
        {}, failing(left));
  }
}

/// Without the documents of the lost rank, the answer is that of a memory that lacks them.
TEST_F(ShardFailure, TheRestIsRoutedAsIfAlone) {
  const ModelConfig& config = model_->config();
  const auto snapshot = bank_->snapshot();
  const SlotRange lost = shard_ranges(*snapshot, 3)[1];
  std::vector<uint8_t> allowed(static_cast<size_t>(snapshot->n_documents()), 1);
  std::fill(allowed.begin() + lost.begin, allowed.begin() + lost.end, uint8_t{0});
  testing::with_ranks(
      3,
      [&](ShardDriver* ranks) {
        DeviceBank device;
        BankMemory one(config, snapshot, {4, allowed});
        ShardedMemory several(context_, config, snapshot, {4}, device, *ranks);
        const int layer = config.memory.routing_layers[0];
        Buffer memory;
        const Tensor q = memory.tensor(DType::kF32, {1, config.q_size()});
        for (int64_t e = 0; e < q.elements(); ++e) q.as<float>()[e] = static_cast<float>(e % 7) - 3;
        for (RoutedMemory* m : {static_cast<RoutedMemory*>(&one), static_cast<RoutedMemory*>(&several)}) {
          m->route(context_, layer, q);
          m->gather(layer);
        }
        ASSERT_EQ(one.selection(0).size(), several.selection(0).size());
        for (size_t d = 0; d < one.selection(0).size(); ++d) {
          EXPECT_EQ(one.selection(0)[d].id, several.selection(0)[d].id);
        }
        EXPECT_TRUE(several.missing().any());
      },
      {.degraded = true}, failing(0));
}

TEST_F(ShardFailure, ARankThatHangsRunsIntoTheTimeout) {
  for (const bool degraded : {false, true}) {
    for (const int left : {0, 3}) {
      std::atomic<bool> hangs = true;
      const auto run = [&] {
        testing::with_ranks(
            3,
            [&](ShardDriver* ranks) {
              struct Release {
                std::atomic<bool>& hangs;
                ~Release() { hangs = false; }
              } release{hangs};
              EXPECT_TRUE(ask(ranks).missing.any());
            },
            {.timeout = 300ms, .degraded = degraded}, failing(left, &hangs));
      };
      if (degraded) {
        run();
        continue;
      }
      try {
        run();
        FAIL();
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("rank 1: it did not answer in time"));
      }
    }
  }
}

TEST_F(ShardFailure, ARankThatCannotOpenItsPartSaysWhy) {
  const testing::RankBody elsewhere = [this](int rank, Exchange& exchange) {
    testing::serve(exchange, nullptr, rank == 2 ? folder_.path() / "nowhere" : bank_path());
  };
  try {
    testing::with_ranks(
        3, [&](ShardDriver* ranks) { ask(ranks); }, {}, elsewhere);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 2"));
    EXPECT_THAT(error.what(), HasSubstr("nowhere"));
  }
  testing::with_ranks(
      3,
      [&](ShardDriver* ranks) {
        const Answer answer = ask(ranks);
        ASSERT_EQ(answer.missing.why.size(), 1u);
        EXPECT_THAT(answer.missing.why[0], HasSubstr("nowhere"));
        EXPECT_GT(answer.missing.chunks, 0);
        EXPECT_LT(answer.missing.chunks, answer.missing.of_chunks);
      },
      {.degraded = true}, elsewhere);
}

}  // namespace
}  // namespace msa
