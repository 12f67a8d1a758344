#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "comm/launcher.h"
#include "core/log.h"
#include "io/checksum.h"
#include "io/file.h"
#include "tokenizer/model_files.h"
#include "train/bank_recall.h"
#include "train/checkpoint.h"
#include "train/data/batch_queue.h"
#include "train/data/batcher.h"
#include "train/data/random.h"
#include "train/device.h"
#include "train/step.h"

namespace msa::train {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr const char* kCheckpoint = "checkpoint.safetensors";
// Steps in a row without a finite gradient before a run gives up.
constexpr int64_t kMostLostSteps = 50;

torch::Dtype precision_of(const std::string& name, torch::Device device) {
  if (name == "auto") return device.is_cuda() ? torch::kBFloat16 : torch::kFloat;
  return name == "bf16" ? torch::kBFloat16 : torch::kFloat;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// What must be the same for a checkpoint to be gone on from: all but where and how often is logged.
std::string hash_of(const Recipe& r) {
  Xxh3 hash;
  hash.update(r.text);
  return hash.hex();
}

/// Means of what the steps since the last line gave; read from the device once a line.
class Progress {
 public:
  void add(const StepResult& r, const Tensor& norm, double distillation_weight) {
    std::vector<Tensor> row{r.loss, r.lm_loss, r.aux_loss, r.recall_1, r.recall_16, norm, r.cite_loss, r.text_loss};
    row.push_back(distillation_weight > 0 && r.distillation.defined() ? r.distillation : torch::zeros_like(r.loss));
    row.push_back(r.late_recall_1);
    row.push_back(r.late_loss.defined() ? r.late_loss : torch::zeros_like(r.loss));
    for (const Tensor& t : {r.rerank_loss, r.rerank_1}) row.push_back(t.defined() ? t : torch::zeros_like(r.loss));
    for (Tensor& t : row) t = t.detach().to(torch::kFloat);
    rows_.push_back(torch::stack(row));
  }

  struct Line {
    double late_recall_1 = 0, late = 0, rerank = 0, rerank_1 = 0;
    double loss = 0, lm = 0, cite = 0, text = 0, aux = 0, recall_1 = 0, recall_16 = 0, norm = 0, distillation = 0;
    int64_t lost = 0;  // steps whose gradient was not finite
    int64_t steps = 0;
  };

  Line take() {
    const Tensor all = torch::stack(rows_).cpu();
    rows_.clear();
    const Tensor finite = all.select(1, 5).isfinite() & all.select(1, 0).isfinite();
    Line line;
    line.steps = all.size(0);
    line.lost = line.steps - finite.sum().item<int64_t>();
    if (line.lost == line.steps) return line;
    const Tensor mean = all.index({finite}).mean(0);
    const auto at = [&](int i) { return static_cast<double>(mean[i].item<float>()); };
    line.loss = at(0), line.lm = at(1), line.aux = at(2), line.recall_1 = at(3), line.recall_16 = at(4);
    line.late_recall_1 = at(9), line.late = at(10), line.rerank = at(11), line.rerank_1 = at(12);
    line.norm = at(5), line.cite = at(6), line.text = at(7), line.distillation = at(8);
    return line;
  }

 private:
  std::vector<Tensor> rows_;
};

}  // namespace

struct Trainer::Impl {
  Impl(Recipe given, Communicator& group)
      : recipe(std::move(given)),
        communicator(group),
        device(parse_device(recipe.run.device, launched_local_rank())),
        tokenizer(load_tokenizer(recipe.model.base)),
        prompts(load_prompts(recipe.model.base, tokenizer)),
        data(load_training_data(recipe.data, tokenizer, pool)),
        batcher(recipe.data, data, tokenizer, prompts, rank_seed()),
        backbone(recipe.model.base, recipe.model.start, recipe.model.parts,
                 precision_of(recipe.model.precision, device), device, recipe.run.seed),
        network(backbone.config(), precision_of(recipe.model.precision, device)),
        optimizer(recipe.optimizer, backbone.parameters()) {
    if (recipe.run.deterministic) at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
    if (tokenizer.vocab_size() > backbone.config().vocab) {
      throw Error("the tokenizer has more tokens than the model", recipe.model.base);
    }
    if (recipe.data.rerank_questions > 0 && prompts.rerank.yes < 0) {
      throw Error("data.rerank_questions needs the prompts of id_decoding.rerank in msa_template.json",
                  recipe.model.base, "add them, or leave the field out");
    }
    if (is_first()) load_evaluation_sets();
    batcher.make(0);  // a recipe whose batches cannot be made fails here
    fs::create_directories(recipe.run.output);
    const std::string checkpoint = path(kCheckpoint);
    if (fs::exists(checkpoint)) {
      state = load_checkpoint(checkpoint, hash_of(recipe), backbone.parameters(), optimizer);
      if (is_first()) std::cerr << fmt::format("resuming after step {}\n", state.step);
    }
    state.recipe_hash = hash_of(recipe);
    communicator.barrier();  // nobody writes before all have read
    if (!is_first()) return;
    metrics.open(path("metrics.jsonl"), std::ios::app);
    if (!metrics) throw Error("cannot be written", path("metrics.jsonl"), "choose another run.output");
    AtomicFile copy(path("recipe.toml"));
    copy.write(recipe.text);
    copy.commit();
  }

  bool is_first() const { return communicator.rank() == 0; }
  uint64_t rank_seed() const {
    return recipe.run.seed + 0x9e3779b97f4a7c15u * static_cast<uint64_t>(communicator.rank());
  }

  std::string path(const char* name) const { return (fs::path(recipe.run.output) / name).string(); }

  void load_evaluation_sets() {
    extra_sets.reserve(recipe.evaluation.sets.size());
    for (const EvaluationRecipe::Set& set : recipe.evaluation.sets) {
      const auto trained = std::find_if(data.sets.begin(), data.sets.end(), [&](const TrainingSet& t) {
        std::error_code ignored;
        return fs::equivalent(t.recipe.folder, set.folder, ignored);
      });
      if (trained != data.sets.end()) {
        const Dataset& dataset = data.datasets[static_cast<size_t>(trained->dataset)];
        banks.push_back(choose_bank(dataset, trained->split.held_out, set.questions, set.documents));
      } else {
        extra_sets.push_back(make_dataset(load_beir(set.folder), tokenizer, {recipe.data.max_document_tokens}, pool));
        const QuestionSplit all = split_questions(extra_sets.back(), {}, 0);
        banks.push_back(choose_bank(extra_sets.back(), all.train, set.questions, set.documents));
      }
      if (banks.back().questions.empty()) {
        throw Error("has no question to measure recall with", set.folder,
                    "a training set needs a larger data.held_out, another set questions with gold documents");
      }
    }
  }

  StepOptions options_at(int64_t step) const {
    const LossRecipe& l = recipe.loss;
    const double share = static_cast<double>(step) / static_cast<double>(recipe.run.steps);
    const bool warm = share < l.warm_share;
    StepOptions o;
    o.lm_weight = warm ? l.warm_lm : l.main_lm;
    o.aux_weight = warm ? l.warm_aux : l.main_aux;
    o.cite_weight = l.cite_weight;
    o.mean_weight = l.mean_weight;
    o.mean_tau = l.mean_tau;
    o.distillation_weight = l.distillation;
    o.late_weight = l.late_weight;
    o.late_tau = l.late_tau;
    o.late_distillation = l.late_distillation;
    o.cited_weight = l.cited_weight;
    o.cited_distillation = l.cited_distillation;
    o.rerank_weight = l.rerank_weight;
    o.rerank_yes = prompts.rerank.yes;
    o.rerank_no = prompts.rerank.no;
    o.routing_loss = l.routing;
    o.tau = l.tau;
    o.teacher_tau = l.teacher_tau;
    o.recompute = recipe.run.recompute;
    const double left = l.attend_gold_until > 0 ? std::max(0.0, 1 - share / l.attend_gold_until) : 0;
    RandomStream random(recipe.run.seed ^ 0x60D5u, static_cast<uint64_t>(step));
    o.attend_gold = random.uniform() < l.attend_gold * left;
    return o;
  }

  /// Averages the gradients over all ranks. Returns whether any rank wants to stop: all must do so at the same step.
  bool average_gradients(bool wants_stop) {
    if (communicator.size() == 1) return wants_stop;
    torch::NoGradGuard no_gradients;
    std::vector<Tensor> flat;
    for (const Parameters::Group& g : backbone.parameters().groups()) flat.push_back(g.gradients);
    flat.push_back(torch::full({1}, wants_stop ? 1.0 : 0.0, flat.front().options()));
    const Tensor all = torch::cat(flat).cpu();
    communicator.all_reduce_sum(all.data_ptr<float>(), static_cast<size_t>(all.numel()));
    int64_t at = 0;
    for (const Parameters::Group& g : backbone.parameters().groups()) {
      Tensor(g.gradients).copy_(all.slice(0, at, at + g.gradients.numel())).div_(communicator.size());
      at += g.gradients.numel();
    }
    return all[at].item<float>() > 0;
  }

  /// Ranks step alike from alike weights; should they ever part, no result counts.
  void check_ranks_agree() {
    if (communicator.size() == 1) return;
    Xxh3 hash;
    for (const Parameters::Group& g : backbone.parameters().groups()) {
      const Tensor values = g.values.cpu();
      hash.update(values.data_ptr<float>(), static_cast<size_t>(values.numel()) * sizeof(float));
    }
    const std::string mine = hash.hex();
    for (const auto& other : communicator.all_gather(mine.data(), mine.size())) {
      if (std::string(reinterpret_cast<const char*>(other.data()), other.size()) == mine) continue;
      throw Error("the ranks' weights have drifted apart", "step " + std::to_string(state.step),
                  "use the same kind of device on every rank");
    }
  }

  /// Returns true when the run is to stop after this step.
  bool train_step(const Batch& batch, bool wants_stop) {
    const StepInput input = StepInput::from(batch, backbone.config(), device);
    const StepOptions options = options_at(state.step);
    backbone.parameters().zero_gradients();
    const StepResult result = run_step(network, backbone.effective(), input, options);
    result.loss.backward();
    const bool stops = average_gradients(wants_stop);
    const double factor = rate_factor(recipe.optimizer, state.step, recipe.run.steps, recipe.loss.warm_share);
    ++state.step;
    const Tensor norm = optimizer.step(backbone.parameters(), state.step, factor);
    progress.add(result, norm, options.distillation_weight);
    state.tokens += input.n_tokens * communicator.size();
    tokens_since += input.n_tokens * communicator.size();
    return stops;
  }

  void write_metrics(Json line) {
    metrics << line.dump() << '\n';
    metrics.flush();
  }

  /// What the next line of the log counts begins here.
  void begin_line(const BatchQueue& queue) {
    last_line = Clock::now();
    waited_before = queue.wait_seconds();
    tokens_since = 0;
  }

  void log(const BatchQueue& queue) {
    const Progress::Line line = progress.take();
    const double seconds = seconds_since(last_line), waited = queue.wait_seconds() - waited_before;
    lost_steps = line.lost == line.steps ? lost_steps + line.steps : 0;
    if (is_first()) write_line(line, seconds, waited);
    begin_line(queue);
    if (lost_steps >= kMostLostSteps) {
      throw Error(fmt::format("the gradient has not been finite for {} steps", lost_steps),
                  "step " + std::to_string(state.step), "lower the learning rates; the last checkpoint is untouched");
    }
  }

  void write_line(const Progress::Line& line, double seconds, double waited) {
    const double rate = static_cast<double>(tokens_since) / std::max(1e-9, seconds);
    const double gib = static_cast<double>(peak_memory(device)) / (1 << 30);
    std::cerr << fmt::format(
        "step {}/{}  loss {:.3f}  cite {:.3f}  text {:.3f}  routing {:.3f}  in pool @1 {:.2f} @16 {:.2f} late @1 "
        "{:.2f}  rerank {:.3f} @1 {:.2f}  norm {:.2f}  "
        "{:.0f} tok/s  "
        "{:.1f} GiB  waited {:.0f} %{}\n",
        state.step, recipe.run.steps, line.loss, line.cite, line.text, line.aux, line.recall_1, line.recall_16,
        line.late_recall_1, line.rerank, line.rerank_1, line.norm, rate, gib, 100 * waited / std::max(1e-9, seconds),
        line.lost > 0 ? fmt::format("  {} steps lost", line.lost) : "");
    write_metrics({{"step", state.step},
                   {"loss", line.loss},
                   {"lm_loss", line.lm},
                   {"cite_loss", line.cite},
                   {"text_loss", line.text},
                   {"routing_loss", line.aux},
                   {"distillation_loss", line.distillation},
                   {"pool_recall_1", line.recall_1},
                   {"pool_recall_16", line.recall_16},
                   {"late_loss", line.late},
                   {"pool_late_recall_1", line.late_recall_1},
                   {"rerank_loss", line.rerank},
                   {"rerank_1", line.rerank_1},
                   {"gradient_norm", line.norm},
                   {"lost_steps", line.lost},
                   {"tokens", state.tokens},
                   {"tokens_per_second", rate},
                   {"memory_gib", gib},
                   {"wait_share", waited / std::max(1e-9, seconds)},
                   {"seconds", state.seconds + seconds_since(begin)}});
  }

  BankRecall evaluate(bool at_end) {
    BankRecall first;
    torch::NoGradGuard no_gradients;
    const NetworkTensors w = backbone.effective();
    for (size_t i = 0; i < banks.size(); ++i) {
      if (recipe.evaluation.sets[i].only_at_end && !at_end) continue;
      const BankRecall r =
          measure_recall(network, w, prompts, banks[i], {recipe.loss.mean_tau, recipe.loss.late_tau, device});
      std::cerr << fmt::format(
          "      whole bank {}: {} documents, {} questions: @1 {:.3f} @5 {:.3f} @16 {:.3f} @100 {:.3f} id@1 {:.3f} "
          "id@3 {:.3f} ({:.1f} s)\n",
          fs::path(r.set).filename().string(), r.documents, r.questions, r.at_1, r.at_5, r.at_16, r.at_100, r.id_1,
          r.id_3, r.seconds);
      write_metrics({{"step", state.step},
                     {"set", fs::path(r.set).filename().string()},
                     {"documents", r.documents},
                     {"questions", r.questions},
                     {"recall_1", r.at_1},
                     {"recall_5", r.at_5},
                     {"recall_16", r.at_16},
                     {"recall_100", r.at_100},
                     {"id_1", r.id_1},
                     {"id_3", r.id_3},
                     {"eval_seconds", r.seconds}});
      if (first.questions == 0) first = r;
    }
    return first;
  }

  void save() {
    check_ranks_agree();
    if (!is_first()) return;
    CheckpointState now = state;
    now.seconds += seconds_since(begin);
    save_checkpoint(path(kCheckpoint), now, backbone.parameters(), optimizer, recipe.run.small_checkpoint);
    backbone.export_to(recipe.run.output, recipe.model.parts.all_weights ? DType::kBF16 : DType::kF16);
  }

  RunResult run(const std::function<bool()>& stop) {
    begin = last_line = Clock::now();
    BatchQueue queue([this](int64_t step) { return batcher.make(step); }, state.step, recipe.run.batch_threads,
                     2 * recipe.run.batch_threads);
    RunResult result;
    while (state.step < recipe.run.steps) {
      const bool out_of_time = recipe.run.max_minutes > 0 && seconds_since(begin) > 60 * recipe.run.max_minutes;
      const bool stops = train_step(queue.next(), out_of_time || stop());
      const bool last = state.step == recipe.run.steps;
      if (state.step % recipe.run.log_every == 0 || last) log(queue);
      if (!banks.empty() && (state.step % recipe.evaluation.every == 0 || last)) {
        result.recall = evaluate(last);
        begin_line(queue);
      }
      if (state.step % recipe.run.save_every == 0 || last || stops) save();
      if (!stops || last) continue;
      result.end = out_of_time ? RunEnd::kTimeLimit : RunEnd::kInterrupted;
      break;
    }
    result.step = state.step;
    return result;
  }

  Recipe recipe;
  Communicator& communicator;
  torch::Device device;
  ThreadPool pool;
  Tokenizer tokenizer;
  PromptTemplate prompts;
  TrainingData data;
  Batcher batcher;
  Backbone backbone;
  Network network;
  AdamW optimizer;
  std::vector<Dataset> extra_sets;
  std::vector<BankQuestions> banks;
  CheckpointState state;
  std::ofstream metrics;
  Progress progress;
  Clock::time_point begin, last_line;
  double waited_before = 0;
  int64_t tokens_since = 0, lost_steps = 0;
};

Trainer::Trainer(Recipe recipe, Communicator& communicator)
    : impl_(std::make_unique<Impl>(std::move(recipe), communicator)) {}
Trainer::~Trainer() = default;
RunResult Trainer::run(const std::function<bool()>& stop) { return impl_->run(stop); }

}  // namespace msa::train
