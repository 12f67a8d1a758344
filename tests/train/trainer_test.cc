// Whole runs on tiny models: they learn, resume exactly, stop on demand, refuse broken recipes, and the engine agrees.
#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "../train_data/tiny_sets.h"
#include "bank/bank.h"
#include "comm/local_communicator.h"
#include "comm/thread_communicator.h"
#include "engine/bank_memory.h"
#include "engine/encoder.h"
#include "engine/session.h"
#include "io/safetensors.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace msa::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

class TrainerRun : public ::testing::Test {
 protected:
  void SetUp() override {
    msa::testing::TinyShape shape;
    shape.layers = 2;
    msa::testing::write_tiny_model(sets_.path("model"), shape);
    std::vector<TinyDocument> documents;
    std::vector<TinyQuestion> questions;
    std::mt19937 random(11);
    const auto word = [&] {
      std::string w;
      for (int i = 0; i < 5; ++i) w += static_cast<char>('a' + random() % 26);
      return w;
    };
    for (int i = 0; i < 12; ++i) {
      const std::string id = "d" + std::to_string(i), name = word(), answer = word();
      documents.push_back({id, "", name + " is " + answer});
      for (const std::string form : {"what is ", "say ", "tell me ", "who is "}) {
        questions.push_back({"q" + std::to_string(questions.size()), form + name, {answer}, {id}, {}, ""});
      }
    }
    sets_.write_set("set", documents, questions);
    sets_.write_set("all", documents, questions);  // as a set of its own, no question is held out
  }

  /// A recipe; `more` replaces lines "key = value" of the [run] table or adds others.
  std::string write_recipe(const std::string& name, int steps, const std::string& output, const std::string& run = "",
                           const std::string& model = "train = \"all\"") const {
    sets_.write(name, R"([model]
base = "model"
)" + model + R"(
[optimizer]
weights_rate = 2e-3
router_rate = 1e-2
adapter_rate = 1e-2
warmup_steps = 5
[loss]
warm_share = 0.7
[data]
samples = 12
pool_tokens = 400
id_digits = 2
top_k = 3
held_out = 0.0
max_sample_tokens = 200
max_document_tokens = 100
neighbours = 0
hard_negatives_per_question = 0
[[data.sets]]
folder = "set"
retrieve = 1
answer = 0.2
[evaluation]
every = 1000
[[evaluation.sets]]
folder = "all"
[run]
device = "cpu"
log_every = 20
deterministic = true
steps = )" + std::to_string(steps) +
                          "\noutput = \"" + output + "\"\n" + run);
    return sets_.path(name);
  }

  static RunResult run(
      const std::string& recipe, const std::function<bool()>& stop = [] { return false; }) {
    LocalCommunicator alone;
    return Trainer(read_recipe(recipe), alone).run(stop);
  }

  TinySets sets_;
};

TEST_F(TrainerRun, ATinyModelLearnsToFindEveryDocument) {
  const RunResult result = run(write_recipe("recipe.toml", 200, "out"));
  EXPECT_EQ(result.end, RunEnd::kFinished);
  ASSERT_TRUE(result.recall);
  EXPECT_EQ(result.recall->questions, 48);
  EXPECT_EQ(result.recall->at_1, 1.0) << "every question of the training set, over the whole bank";
  std::istringstream metrics(contents(sets_.path("out/metrics.jsonl")));
  std::string line;
  std::vector<double> losses;
  while (std::getline(metrics, line)) {
    const auto j = nlohmann::json::parse(line);
    if (j.contains("routing_loss")) losses.push_back(j["routing_loss"]);
  }
  ASSERT_GE(losses.size(), 2u);
  EXPECT_LT(losses.back(), losses.front() / 4);
}

TEST_F(TrainerRun, AResumedRunIsTheRunThatNeverStopped) {
  run(write_recipe("whole.toml", 6, "whole"));
  const std::string recipe = write_recipe("halves.toml", 6, "halves");
  int steps = 0;
  const RunResult half = run(recipe, [&] { return ++steps == 3; });
  EXPECT_EQ(half.end, RunEnd::kInterrupted);
  EXPECT_EQ(half.step, 3);
  EXPECT_EQ(run(recipe).step, 6);
  EXPECT_EQ(contents(sets_.path("whole/model.safetensors")), contents(sets_.path("halves/model.safetensors")));
  const auto a = SafetensorsFile::open(sets_.path("whole/checkpoint.safetensors"));
  const auto b = SafetensorsFile::open(sets_.path("halves/checkpoint.safetensors"));
  ASSERT_FALSE(a.tensors().empty());
  for (const auto& [name, tensor] : a.tensors()) {
    const msa::Tensor other = b.get(name);
    EXPECT_EQ(std::memcmp(tensor.data, other.data, static_cast<size_t>(tensor.bytes())), 0) << name;
  }
}

TEST_F(TrainerRun, ASmallCheckpointGoesOnNearly) {
  const std::string recipe = write_recipe("small.toml", 20, "small", "small_checkpoint = true\n");
  int steps = 0;
  run(recipe, [&] { return ++steps == 10; });
  EXPECT_EQ(run(recipe).end, RunEnd::kFinished);
  run(write_recipe("exact.toml", 20, "exact"));
  const auto a = SafetensorsFile::open(sets_.path("small/model.safetensors"));
  const auto b = SafetensorsFile::open(sets_.path("exact/model.safetensors"));
  EXPECT_LT(fs::file_size(sets_.path("small/checkpoint.safetensors")) * 3,
            fs::file_size(sets_.path("exact/checkpoint.safetensors")));
  double difference = 0, norm = 0;
  for (const auto& [name, tensor] : a.tensors()) {
    const auto x = torch::from_blob(tensor.data, {tensor.elements()}, torch::kBFloat16).to(torch::kDouble);
    const auto y = torch::from_blob(b.get(name).data, {tensor.elements()}, torch::kBFloat16).to(torch::kDouble);
    difference += (x - y).square().sum().item<double>();
    norm += y.square().sum().item<double>();
  }
  EXPECT_LT(std::sqrt(difference / norm), 0.05);
}

TEST_F(TrainerRun, AnotherRecipeIsNoCheckpointOfThisOne) {
  run(write_recipe("recipe.toml", 2, "out"));
  write_recipe("recipe.toml", 3, "out");
  EXPECT_THROW(run(sets_.path("recipe.toml")), Error);
}

TEST_F(TrainerRun, TwoRanksTrainOneModelAndStopTogether) {
  const Recipe recipe = read_recipe(write_recipe("recipe.toml", 100, "out"));
  std::array<RunResult, 2> results;
  run_ranks(2, [&](Communicator& communicator) {
    int steps = 0;
    const auto stop = [&] { return communicator.rank() == 1 && ++steps == 4; };
    results[static_cast<size_t>(communicator.rank())] = Trainer(recipe, communicator).run(stop);
  });
  for (const RunResult& r : results) {
    EXPECT_EQ(r.end, RunEnd::kInterrupted);
    EXPECT_EQ(r.step, 4);
  }
  // Saving compares the ranks' weights. What two ranks make of their batches differs from what one makes of its own.
  run(write_recipe("alone.toml", 4, "alone"));
  EXPECT_NE(contents(sets_.path("out/model.safetensors")), contents(sets_.path("alone/model.safetensors")));
  LocalCommunicator alone;
  EXPECT_EQ(Trainer(recipe, alone).run([] { return true; }).step, 5) << "goes on alone";
}

TEST_F(TrainerRun, TheTimeLimitSavesAndStops) {
  const RunResult r = run(write_recipe("recipe.toml", 100000, "out", "max_minutes = 0.001\n"));
  EXPECT_EQ(r.end, RunEnd::kTimeLimit);
  EXPECT_TRUE(fs::exists(sets_.path("out/checkpoint.safetensors")));
}

TEST_F(TrainerRun, BrokenRecipesAreRefusedBeforeTraining) {
  const auto error = [&](const std::string& recipe) -> std::string {
    try {
      run(recipe);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_THAT(error(write_recipe("a.toml", 2, "out", "speed = 3\n")), HasSubstr("speed"));
  EXPECT_THAT(error(write_recipe("b.toml", 0, "out")), HasSubstr("steps"));
  EXPECT_THAT(error(write_recipe("c.toml", 2, "out", "", "rank = 0")), HasSubstr("rank"));
  EXPECT_THAT(error(write_recipe("d.toml", 2, "out", "", "modules = [\"qq\"]")), HasSubstr("qq"));
  EXPECT_THAT(error(write_recipe("e.toml", 2, "out", "", "layers = [9]")), HasSubstr("9"));
  fs::remove(sets_.path("set/qrels.tsv"));
  EXPECT_THAT(error(write_recipe("f.toml", 2, "out")), HasSubstr("qrels"));
  EXPECT_FALSE(fs::exists(sets_.path("out/checkpoint.safetensors")));
}

TEST_F(TrainerRun, TheEngineRoutesAndAnswersAsTheTrainerDoes) {
  msa::testing::write_tiny_model(sets_.path("model"));  // two routing layers
  run(write_recipe("recipe.toml", 10, "out", "", "rank = 4"));
  TrainedParts parts;
  parts.rank = 4;
  parts.alpha = 8;
  parts.layer_weights = true;
  {
    torch::NoGradGuard no_gradients;
    Backbone weighted(sets_.path("model"), sets_.path("out/adapter.safetensors"), parts, torch::kFloat, torch::kCPU, 9);
    const torch::Tensor logits = weighted.parameters().get("router_layer_logits");
    logits.copy_(torch::arange(logits.numel()) * -1.5);
    weighted.export_to(sets_.path("model"), DType::kF16);
  }
  parts.layer_weights = false;
  // The exported adapter rounds to float16: both sides read it back.
  Backbone backbone(sets_.path("model"), sets_.path("model/adapter.safetensors"), parts, torch::kFloat, torch::kCPU, 9);
  const Network network(backbone.config(), torch::kFloat);
  Context context(2);
  const Model model(context, sets_.path("model"), Precision::kF32);

  const std::vector<std::string> texts{"alpha is one", "beta is two and a little longer", "gamma", "delta is four"};
  std::vector<int32_t> pool = model.prompts().head().tokens;
  std::vector<int64_t> starts{0, static_cast<int64_t>(pool.size())};
  std::vector<DocumentTokens> documents;
  for (size_t i = 0; i < texts.size(); ++i) {
    documents.push_back(
        model.prompts().document(static_cast<int64_t>(i) + 1, model.tokenizer().encode(texts[i])).tokens);
    pool.insert(pool.end(), documents.back().begin(), documents.back().end());
    starts.push_back(static_cast<int64_t>(pool.size()));
  }
  const Prompt prompt = model.prompts().query("what is beta");
  Batch batch;
  batch.tokens = pool;
  batch.starts = starts;
  batch.n_trained = batch.documents();
  batch.sample_tokens = prompt.tokens;
  batch.sample_starts = {0, static_cast<int64_t>(prompt.tokens.size())};
  batch.routed = prompt.routed;
  batch.predicted.assign(prompt.tokens.size(), 0);
  batch.kinds = {SampleKind::kRetrieve};
  batch.positive_starts = {0, 0};

  torch::NoGradGuard no_gradients;
  const NetworkTensors w = backbone.effective();
  const StepInput input = StepInput::from(batch, backbone.config(), torch::kCPU);
  Network::QueryOptions options;
  options.top_k = backbone.config().memory.top_k_documents;
  const QueryResult trained = network.query(w, network.encode(w, input.pool, input.chunks, Recompute::kNone),
                                            input.documents, input.samples, options);
  const auto wanted = network.logits(w, trained.hidden).contiguous();

  auto bank = Bank::in_memory(bank_shape(model.transformer(), DType::kF32));
  const auto encoded = Encoder(model.transformer(), DType::kF32).encode(context, documents);
  const auto ids = bank->reserve_ids(static_cast<int64_t>(texts.size()));
  ASSERT_TRUE(bank->add(ids, std::vector<DocumentInput>(texts.size()), encoded).committed());
  BankMemory memory(model.config(), bank->snapshot(), {options.top_k, {}, /*late=*/true});
  Session session(context, model.transformer(), model.head(), &memory, model.head().length() + options.top_k);
  const msa::Tensor logits = session.feed_all(context, prompt.tokens, prompt.routed);
  const auto got = torch::from_blob(logits.data, {logits.rows(), logits.dim(1)}, torch::kFloat);
  EXPECT_LT(((got - wanted).norm() / wanted.norm()).item<double>(), 1e-4);
  const auto n_layers = static_cast<int64_t>(trained.scores.size());
  ASSERT_EQ(n_layers, 2);
  EXPECT_GT((w.layer_weights[0] - w.layer_weights[1]).item<float>(), 0.5f) << "the layers count differently";
  // The engine's weights have mean 1, the trainer's sum 1: a layer's score is multiplied before the mean is taken.
  for (size_t layer = 0; layer < trained.scores.size(); ++layer) {
    const auto engine = memory.scores(static_cast<int>(layer));
    const auto expected = trained.scores[layer][0] * w.layer_weights[static_cast<int64_t>(layer)] * n_layers;
    for (size_t d = 0; d < texts.size(); ++d) {
      EXPECT_NEAR(engine[d], expected[static_cast<int64_t>(d)].item<float>(), 1e-4);
    }
    std::vector<int64_t> routed;
    for (const msa::ScoredDocument& s : memory.selection(static_cast<int>(layer))) routed.push_back(s.index);
    const auto best = std::get<1>(trained.scores[layer].topk(options.top_k, 1))[0].contiguous();
    EXPECT_EQ(routed, std::vector<int64_t>(best.data_ptr<int64_t>(), best.data_ptr<int64_t>() + best.numel()));
  }
  const std::vector<msa::ScoredDocument> ranked = memory.routed(static_cast<int>(texts.size()));
  const std::vector<float> late = memory.late_scores(ranked);
  ASSERT_EQ(ranked.size(), texts.size());
  const auto mean = mean_score(trained.scores, w.layer_weights)[0],
             mean_late = mean_score(trained.late, w.layer_weights)[0];
  for (size_t i = 0; i < ranked.size(); ++i) {
    EXPECT_NEAR(ranked[i].score, mean[ranked[i].index].item<float>(), 1e-4);
    EXPECT_NEAR(late[i], mean_late[ranked[i].index].item<float>(), 1e-4);
    EXPECT_GT(ranked[i].score - late[i], 1e-3f) << "a mean over tokens lies below the largest";
  }
}

TEST(Optimizer, StepsAsLibtorchsAdamW) {
  torch::manual_seed(2);
  Parameters ours;
  const auto a = torch::randn({7}), b = torch::randn({3, 2});
  ours.add("adapter", "a", a);
  ours.add("router", "b", b);
  ours.finish(torch::kCPU);
  auto x = a.clone().set_requires_grad(true), y = b.clone().set_requires_grad(true);
  OptimizerRecipe recipe;
  recipe.clip = 1e9;
  recipe.router_rate = recipe.adapter_rate;
  torch::optim::AdamW theirs({x, y}, torch::optim::AdamWOptions(recipe.adapter_rate)
                                         .betas(std::make_tuple(recipe.beta1, recipe.beta2))
                                         .weight_decay(recipe.weight_decay));
  AdamW optimizer(recipe, ours);
  const auto loss = [](const torch::Tensor& p, const torch::Tensor& q) {
    return (p.square() * torch::arange(7)).sum() + q.pow(4).sum();
  };
  for (int step = 1; step <= 20; ++step) {
    ours.zero_gradients();
    loss(ours.get("a"), ours.get("b")).backward();
    optimizer.step(ours, step, 1.0);
    theirs.zero_grad();
    loss(x, y).backward();
    theirs.step();
  }
  EXPECT_TRUE(torch::allclose(ours.get("a"), x, 1e-5, 1e-6));
  EXPECT_TRUE(torch::allclose(ours.get("b"), y, 1e-5, 1e-6));
}

TEST(Optimizer, AGradientThatIsNoNumberChangesNothing) {
  Parameters p;
  p.add("adapter", "a", torch::ones({4}));
  p.finish(torch::kCPU);
  AdamW optimizer({}, p);
  p.get("a").mutable_grad().fill_(std::nanf(""));
  optimizer.step(p, 1, 1.0);
  EXPECT_TRUE(torch::equal(p.get("a"), torch::ones({4})));
  EXPECT_TRUE(optimizer.moments()[0].first.isfinite().all().item<bool>());
}

TEST(Optimizer, RatesRiseStayAndFall) {
  OptimizerRecipe r;
  r.warmup_steps = 10;
  EXPECT_NEAR(rate_factor(r, 0, 1000, 0.3), 0.1, 1e-9);
  EXPECT_NEAR(rate_factor(r, 200, 1000, 0.3), 1.0, 1e-9);
  EXPECT_NEAR(rate_factor(r, 650, 1000, 0.3), 0.525, 1e-9);
  EXPECT_NEAR(rate_factor(r, 1000, 1000, 0.3), 0.05, 1e-9);
}

}  // namespace
}  // namespace msa::train
