// A bank over 1, 2, 3 and 5 ranks: the same documents, scores and answers as in one process, to the last bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/encoder.h"
#include "engine/generator.h"
#include "engine/sharded_memory.h"
#include "shard_testing.h"
#include "tiny_model.h"

namespace msa {
namespace {

constexpr uint32_t kSeed = 11;
constexpr int kSizes[] = {2, 3, 5};

class Shard : public ::testing::Test {
 protected:
  Shard() {
    testing::write_tiny_model(folder_.path() / "model");
    model_ = std::make_unique<Model>(context_, (folder_.path() / "model").string(), Precision::kF32);
    bank_ = Bank::create_or_open(bank_path(), bank_shape(model_->transformer(), DType::kF32), BankMode::kWrite);
  }

  std::filesystem::path bank_path() const { return folder_.path() / "bank"; }

  void add(const std::vector<std::string>& texts, const std::string& name_space = "") {
    const auto ids = bank_->reserve_ids(static_cast<int64_t>(texts.size()));
    std::vector<DocumentInput> inputs;
    std::vector<DocumentTokens> tokens;
    for (size_t i = 0; i < texts.size(); ++i) {
      inputs.push_back({texts[i], "doc" + std::to_string(ids[i]), name_space, ""});
      tokens.push_back(model_->prompts().document(ids[i], model_->tokenizer().encode(texts[i])).tokens);
    }
    const auto encoded = Encoder(model_->transformer(), DType::kF32).encode(context_, tokens);
    ASSERT_TRUE(bank_->add(ids, inputs, encoded).committed());
  }

  /// Several commits of documents of 1 to about 20 chunks, of which some are removed again.
  void add_many(int commits = 4) {
    std::uniform_int_distribution<int> length(1, 160), letter('a', 'z');
    for (int c = 0; c < commits; ++c) {
      std::vector<std::string> texts;
      for (int i = 0; i < 7 + 5 * c; ++i) {
        std::string text(static_cast<size_t>(length(random_)), ' ');
        for (char& x : text) x = static_cast<char>(letter(random_));
        texts.push_back(text);
      }
      add(texts, c % 2 == 0 ? "even" : "odd");
    }
    for (DocumentId id = 3; id < bank_->next_id(); id += 5) bank_->remove(id);
  }

  testing::TemporaryFolder folder_;
  Context context_{2};
  std::unique_ptr<Model> model_;
  std::unique_ptr<Bank> bank_;
  std::mt19937 random_{kSeed};
};

void expect_same(const std::vector<RoutedDocument>& a, const std::vector<RoutedDocument>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].id, b[i].id) << i;
    EXPECT_EQ(a[i].external_id, b[i].external_id) << i;
    EXPECT_EQ(a[i].score, b[i].score) << i;
    EXPECT_EQ(a[i].layers, b[i].layers) << i;
  }
}

void expect_same(const Answer& a, const Answer& b) {
  EXPECT_EQ(a.text, b.text);
  EXPECT_EQ(a.stop_reason, b.stop_reason);
  ASSERT_EQ(a.hops.size(), b.hops.size());
  for (size_t h = 0; h < a.hops.size(); ++h) {
    expect_same(a.hops[h].routed, b.hops[h].routed);
    EXPECT_EQ(a.hops[h].generated, b.hops[h].generated);
    EXPECT_EQ(a.hops[h].fetched, b.hops[h].fetched);
    EXPECT_EQ(a.hops[h].end, b.hops[h].end);
  }
  ASSERT_EQ(a.documents.size(), b.documents.size());
  for (size_t i = 0; i < a.documents.size(); ++i) EXPECT_EQ(a.documents[i].text, b.documents[i].text);
  EXPECT_FALSE(b.missing.any());
}

AskOptions ask_options() {
  AskOptions options;
  options.max_answer_tokens = 12;
  return options;
}

constexpr const char* kQuestions[] = {"Who wrote it?", "What dances, and where does the train to the lake leave?"};

TEST_F(Shard, RangesCoverAllSlotsInBalance) {
  add_many();
  const auto snapshot = bank_->snapshot();
  int64_t slots = 0, chunks = 0, longest = 0;
  for (const auto& segment : snapshot->segments) {
    slots += segment->n_documents();
    chunks += segment->n_chunks();
    const auto starts = segment->chunk_starts();
    for (size_t i = 0; i + 1 < starts.size(); ++i) longest = std::max(longest, starts[i + 1] - starts[i]);
  }
  for (int n = 1; n <= 200; n = 2 * n + 1) {
    const std::vector<SlotRange> ranges = shard_ranges(*snapshot, n);
    ASSERT_EQ(ranges.size(), static_cast<size_t>(n));
    int64_t next = 0, live = 0;
    for (const SlotRange& range : ranges) {
      EXPECT_EQ(range.begin, next);
      next = range.end;
      const auto part = part_of(*snapshot, range);
      int64_t here = 0;
      for (const auto& segment : part->segments) here += segment->n_chunks();
      EXPECT_LE(here, chunks / n + longest + 1) << n;
      live += part->n_documents();
    }
    EXPECT_EQ(next, slots);
    EXPECT_EQ(live, snapshot->n_documents());
  }
}

TEST_F(Shard, APartIsWhatTheWholeSaysOfIt) {
  add_many();
  const auto snapshot = bank_->snapshot();
  const Router whole(snapshot);
  ShardOpener opener(bank_path());
  for (const int n : {3, 7, 100}) {
    for (const SlotRange& range : shard_ranges(*snapshot, n)) {
      const auto near = part_of(*snapshot, range), far = opener.open(plan_of(*snapshot, range));
      ASSERT_EQ(near->segments.size(), far->segments.size());
      const Router part(far);
      ASSERT_EQ(part.n_slots(), range.size());
      for (size_t s = 0; s < near->segments.size(); ++s) {
        EXPECT_EQ(near->segments[s]->checksum(), far->segments[s]->checksum());
      }
      for (int64_t slot = 0; slot < range.size(); ++slot) {
        const ScoredDocument here = part.slot(slot), there = whole.slot(range.begin + slot);
        EXPECT_EQ(here.id, there.id);
        const auto at = [](const ScoredDocument& d) { return static_cast<size_t>(d.segment); };
        EXPECT_EQ(far->live[at(here)][static_cast<size_t>(here.index)],
                  snapshot->live[at(there)][static_cast<size_t>(there.index)]);
        const Tensor a = far->segments[at(here)]->content(1, here.index);
        const Tensor b = snapshot->segments[at(there)]->content(1, there.index);
        ASSERT_EQ(a.bytes(), b.bytes());
        EXPECT_EQ(std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())), 0);
      }
    }
  }
}

TEST_F(Shard, AnswersAreThoseOfOneProcess) {
  add_many();
  for (const char* question : kQuestions) {
    const Answer expected = Generator(*model_, *bank_).ask(context_, question, ask_options());
    const Routing routed = Generator(*model_, *bank_).route(context_, question, 40);
    for (const int n : kSizes) {
      SCOPED_TRACE(std::to_string(n) + " ranks, seed " + std::to_string(kSeed));
      testing::with_ranks(n, [&](ShardDriver* ranks) {
        Generator generator(*model_, *bank_, {}, ranks);
        expect_same(expected, generator.ask(context_, question, ask_options()));
        expect_same(routed.documents, generator.route(context_, question, 40).documents);
      });
    }
  }
}

TEST_F(Shard, FiltersTimesAndEditsToo) {
  add_many(2);
  const std::string then = bank_->list().front().created;  // of the first commit
  AskOptions filtered = ask_options(), former = ask_options();
  filtered.scope.filter = "namespace = 'odd'";
  former.scope.as_of = then;
  for (const int n : kSizes) {
    SCOPED_TRACE(std::to_string(n) + " ranks");
    testing::with_ranks(n, [&](ShardDriver* ranks) {
      Generator here(*model_, *bank_), there(*model_, *bank_, {}, ranks);
      for (int edit = 0; edit < 3; ++edit) {
        for (const AskOptions& options : {ask_options(), filtered, former}) {
          expect_same(here.ask(context_, kQuestions[0], options), there.ask(context_, kQuestions[0], options));
        }
        add({"Basalt is a volcanic rock.", "Bees dance.", "The train leaves at nine."}, "odd");
        bank_->remove(bank_->next_id() - 2);
        if (edit == 1) bank_->compact();
        if (edit == 1) former.scope.as_of = "";  // compaction forgot what was then
      }
    });
  }
}

TEST_F(Shard, FewDocumentsAndNone) {
  for (int documents = 0; documents < 4; ++documents) {
    if (documents > 0) add({"Document number " + std::to_string(documents) + "."});
    const Answer expected = Generator(*model_, *bank_).ask(context_, kQuestions[0], ask_options());
    for (const int n : kSizes) {
      SCOPED_TRACE(std::to_string(documents) + " documents, " + std::to_string(n) + " ranks");
      testing::with_ranks(n, [&](ShardDriver* ranks) {
        expect_same(expected, Generator(*model_, *bank_, {}, ranks).ask(context_, kQuestions[0], ask_options()));
      });
    }
  }
}

/// Small and large content (with the candidates, or asked for): scores of all slots, selection, content bytes.
TEST_F(Shard, SelectionsAndContentAreThoseOfOneProcess) {
  add_many();
  const ModelConfig& config = model_->config();
  const auto snapshot = bank_->snapshot();
  for (const int n : kSizes) {
    for (const int top_k : {0, 1, 3, 30, 500}) {
      SCOPED_TRACE(std::to_string(n) + " ranks, top " + std::to_string(top_k));
      testing::with_ranks(n, [&](ShardDriver* ranks) {
        DeviceBank device;
        BankMemory one(config, snapshot, {top_k, {}, /*late=*/true});
        ShardedMemory several(context_, config, snapshot, {top_k, {}, /*late=*/true}, device, *ranks);
        EXPECT_TRUE(several.routed(3).empty());
        for (int hop = 0; hop < 2; ++hop) {
          for (size_t i = 0; i < config.memory.routing_layers.size(); ++i) {
            const int layer = config.memory.routing_layers[i];
            Buffer memory;
            const Tensor q = memory.tensor(DType::kF32, {4, config.q_size()});
            std::normal_distribution<float> normal;
            for (int64_t e = 0; e < q.elements(); ++e) q.as<float>()[e] = normal(random_);
            one.route(context_, layer, q);
            several.route(context_, layer, q);
            const auto a = one.gather(layer), b = several.gather(layer);
            ASSERT_EQ(a.size(), b.size());
            const auto& left = one.selection(static_cast<int>(i));
            const auto& right = several.selection(static_cast<int>(i));
            for (size_t d = 0; d < a.size(); ++d) {
              EXPECT_EQ(left[d].id, right[d].id);
              EXPECT_EQ(left[d].score, right[d].score);
              EXPECT_EQ(left[d].segment, right[d].segment);
              EXPECT_EQ(left[d].index, right[d].index);
              ASSERT_EQ(a[d].k.rows(), b[d].k.rows());
              for (int64_t row = 0; row < a[d].k.rows(); ++row) {
                const auto bytes = static_cast<size_t>(a[d].k.dense_row_bytes());
                EXPECT_EQ(std::memcmp(a[d].k.row<char>(row), b[d].k.row<char>(row), bytes), 0);
                EXPECT_EQ(std::memcmp(a[d].v.row<char>(row), b[d].v.row<char>(row), bytes), 0);
              }
            }
            const auto scores = one.scores(static_cast<int>(i)), others = several.scores(static_cast<int>(i));
            EXPECT_TRUE(std::equal(scores.begin(), scores.end(), others.begin(), others.end()));
          }
          const auto best = one.routed(9), others = several.routed(9);
          ASSERT_EQ(best.size(), others.size());
          EXPECT_EQ(one.late_scores(best), several.late_scores(others));
          for (size_t d = 0; d < best.size(); ++d) {
            EXPECT_EQ(best[d].id, others[d].id);
            EXPECT_EQ(one.layer_scores(best[d]), several.layer_scores(others[d]));
          }
        }
      });
    }
  }
}

}  // namespace
}  // namespace msa
