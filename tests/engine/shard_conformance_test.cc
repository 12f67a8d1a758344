// The conformance cases' models over ranks: selections, scores and logits are those of one process, bit for bit.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "../test_data.h"
#include "engine/encoder.h"
#include "engine/session.h"
#include "engine/sharded_memory.h"
#include "model/weights.h"
#include "shard_testing.h"
#include "tiny_model.h"

namespace msa {
namespace {

using Tokens = std::vector<int32_t>;

struct Outcome {
  std::vector<float> logits;                       // of the prompt and of the continuation
  std::vector<std::vector<DocumentId>> selection;  // per routing layer, after the prompt
  std::vector<std::vector<float>> scores;          // the same
};

Outcome run(Context& context, const Transformer& model, const nlohmann::json& c, RoutedMemory& memory) {
  const auto head_tokens = c.at("template_head").get<Tokens>(), question = c.at("question").get<Tokens>();
  const auto tail = c.at("tail").get<Tokens>(), generated = c.at("generated").get<Tokens>();
  const KvCache head = run_head(context, model, head_tokens);
  Session session(context, model, head, &memory, head.length() + model.config().memory.top_k_documents);
  Tokens prompt = question;
  prompt.insert(prompt.end(), tail.begin(), tail.end());
  std::vector<uint8_t> routed(prompt.size(), 0);
  std::fill_n(routed.begin(), question.size(), uint8_t{1});
  Outcome out;
  const auto keep = [&](std::span<const float> logits) {
    out.logits.insert(out.logits.end(), logits.begin(), logits.end());
  };
  keep(session.feed(context, prompt, routed));
  for (size_t i = 0; i < model.config().memory.routing_layers.size(); ++i) {
    std::vector<DocumentId>& ids = out.selection.emplace_back();
    for (const ScoredDocument& d : memory.selection(static_cast<int>(i))) ids.push_back(d.id);
    const std::span<const float> scores = memory.scores(static_cast<int>(i));
    out.scores.emplace_back(scores.begin(), scores.end());
  }
  for (const int32_t token : generated) keep(session.feed(context, {&token, 1}));
  return out;
}

TEST(ShardConformance, EveryCaseIsThatOfOneProcess) {
  for (const char* name : {"cosine-p8", "llama-p8"}) {
    for (const RouterSimilarity similarity : {RouterSimilarity::kCosine, RouterSimilarity::kScaledDot}) {
      const std::string folder = test_data() + "/conformance/" + name;
      std::ifstream file(folder + "/case.json");
      const auto c = nlohmann::json::parse(file);
      Context context(2);
      ModelWeights weights = load_weights(folder);
      weights.config.memory.similarity = similarity;
      const Transformer model(context, std::move(weights), transformer_options(Precision::kF32, {}));
      const testing::TemporaryFolder bank_folder;
      const auto bank = Bank::create_or_open(bank_folder.path(), bank_shape(model, DType::kF32), BankMode::kWrite);
      const auto documents = c.at("documents").get<std::vector<DocumentTokens>>();
      const auto ids = bank->reserve_ids(static_cast<int64_t>(documents.size()));
      const std::vector<DocumentInput> inputs(documents.size());
      ASSERT_TRUE(bank->add(ids, inputs, Encoder(model, DType::kF32).encode(context, documents)).committed());
      const int top_k = model.config().memory.top_k_documents;
      BankMemory one(model.config(), bank->snapshot(), {top_k});
      const Outcome expected = run(context, model, c, one);
      for (const int n : {2, 3, 5}) {
        SCOPED_TRACE(std::string(name) + " on " + std::to_string(n));
        testing::with_ranks(n, [&](ShardDriver* ranks) {
          DeviceBank device;
          ShardedMemory several(context, model.config(), bank->snapshot(), {top_k}, device, *ranks);
          const Outcome got = run(context, model, c, several);
          EXPECT_EQ(got.logits, expected.logits);
          EXPECT_EQ(got.selection, expected.selection);
          EXPECT_EQ(got.scores, expected.scores);
        });
      }
    }
  }
}

}  // namespace
}  // namespace msa
