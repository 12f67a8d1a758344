#include "train/step.h"

#include <algorithm>
#include <utility>

namespace msa::train {
namespace {

namespace F = torch::nn::functional;

// Rows of logits that exist at once: 49,152 floats each for the default model.
constexpr int64_t kLogitRows = 2048;
// Documents that the engine attends to, and cites from.
constexpr int64_t kRanked = 16;
constexpr double kNoOdds = -1e9;  // of a candidate that is not there

/// The head and documents [first, end) of the batch's pool.
std::pair<std::vector<int32_t>, std::vector<int64_t>> part_of_pool(const Batch& batch, int64_t first, int64_t end) {
  const auto at = [&](int64_t sequence) { return batch.starts[static_cast<size_t>(sequence)]; };
  std::vector<int32_t> tokens(batch.tokens.begin(), batch.tokens.begin() + at(1));
  tokens.insert(tokens.end(), batch.tokens.begin() + at(first + 1), batch.tokens.begin() + at(end + 1));
  std::vector<int64_t> starts{0};
  for (int64_t s = first + 1; s <= end + 1; ++s) starts.push_back(at(1) + at(s) - at(first + 1));
  return {std::move(tokens), std::move(starts)};
}

Tensor longs(const std::vector<int64_t>& values, torch::Device device) {
  return torch::tensor(at::ArrayRef<int64_t>(values), torch::kLong).to(device, /*non_blocking=*/true);
}

Samples samples_of(const Batch& batch, const ModelConfig& config, torch::Device device) {
  const int64_t n = batch.samples(), head = batch.starts[1];
  Samples s;
  s.pack = Pack::from(batch.sample_tokens, batch.sample_starts, head + config.memory.top_k_documents, device);
  std::vector<int64_t> rows, starts{0};
  bool any_restricted = false;
  Tensor attends = torch::ones({n, 1}, torch::kBool), only = torch::ones({n, batch.documents()}, torch::kBool);
  auto allowed = only.accessor<bool, 2>();
  for (int64_t i = 0; i < n; ++i) {
    const auto index = static_cast<size_t>(i);
    for (int64_t row = batch.sample_starts[index]; row < batch.sample_starts[index + 1]; ++row) {
      if (batch.routed[static_cast<size_t>(row)] != 0) rows.push_back(row);
    }
    starts.push_back(static_cast<int64_t>(rows.size()));
    const SampleKind kind = batch.kinds[index];
    const bool is_alone = kind == SampleKind::kLanguage || kind == SampleKind::kRead || kind == SampleKind::kRerank;
    if (is_alone) attends[i][0] = false;
    if (kind != SampleKind::kReconstruct) continue;
    any_restricted = true;
    for (int64_t d = 0; d < batch.documents(); ++d) allowed[i][d] = false;
    for (int64_t j = batch.positive_starts[index]; j < batch.positive_starts[index + 1]; ++j) {
      allowed[i][batch.positives[static_cast<size_t>(j)]] = true;
    }
  }
  s.routed_rows = longs(rows, device);
  s.routed = RowOwners::from(std::move(starts), device);
  s.attends = attends.to(device, /*non_blocking=*/true);
  if (any_restricted) s.only = only.to(device, /*non_blocking=*/true);
  return s;
}

/// Cross-entropy of the predicted tokens: the weighted mean, and those of both kinds of tokens.
void add_language_losses(const Network& network, const NetworkTensors& w, const StepInput& input, const Tensor& hidden,
                         double cite_weight, StepResult& r) {
  const Tensor rows = hidden.index_select(0, input.predicting_rows);
  Tensor all = torch::zeros({}, torch::TensorOptions().dtype(torch::kFloat).device(hidden.device())), cites = all;
  for (int64_t at = 0; at < rows.size(0); at += kLogitRows) {
    const int64_t end = std::min(at + kLogitRows, rows.size(0));
    const Tensor logits = network.logits(w, rows.slice(0, at, end)).to(torch::kFloat);
    const Tensor losses = F::cross_entropy(logits, input.predicted_tokens.slice(0, at, end),
                                           F::CrossEntropyFuncOptions().reduction(torch::kNone));
    all = all + losses.sum();
    cites = cites + losses.dot(input.predicted_cites.slice(0, at, end));
  }
  const Tensor texts = all - cites;
  const auto n_cites = static_cast<double>(input.n_predicted_cites);
  const double n_texts = static_cast<double>(input.n_predicted) - n_cites;
  const double weights = n_texts + cite_weight * n_cites;
  r.lm_loss = weights > 0 ? (texts + cite_weight * cites) / weights : 0 * all;
  r.cite_loss = cites.detach() / std::max(1.0, n_cites);
  r.text_loss = texts.detach() / std::max(1.0, n_texts);
}

struct ScoreWeights {
  double tau, routing, distillation;
};

/// The routing loss and the teacher's targets on one more score [Q, D]: added to r.loss, each where it has a weight.
void add_losses_on(const Tensor& score, const ScoreWeights& weights, const RoutingTargets& targets,
                   const StepOptions& options, StepResult& r, Tensor& routing, Tensor& distillation) {
  if (weights.routing > 0) {
    routing = routing_loss({score}, targets, options.routing_loss, weights.tau);
    r.loss = r.loss + options.aux_weight * weights.routing * routing;
  }
  if (weights.distillation > 0 && targets.teacher.defined()) {
    distillation = distillation_loss({score}, targets, weights.tau, options.teacher_tau);
    r.loss = r.loss + weights.distillation * distillation;
  }
}

/// Groups as rows of one matrix, filled up with `none`.
Tensor padded(const std::vector<int64_t>& starts, int64_t none, torch::Device device) {
  int64_t longest = 0;
  for (size_t g = 0; g + 1 < starts.size(); ++g) longest = std::max(longest, starts[g + 1] - starts[g]);
  Tensor out = torch::full({static_cast<int64_t>(starts.size()) - 1, longest}, none, torch::kLong);
  auto cells = out.accessor<int64_t, 2>();
  for (size_t g = 0; g + 1 < starts.size(); ++g) {
    for (int64_t i = starts[g]; i < starts[g + 1]; ++i) {
      cells[static_cast<int64_t>(g)][i - starts[g]] = i - starts.front();
    }
  }
  return out.to(device, /*non_blocking=*/true);
}

/// Yes against no of each candidate by itself, and the right candidate against the wrong ones of its question.
void add_rerank_loss(const Network& network, const NetworkTensors& w, const StepInput& input, const Tensor& hidden,
                     const StepOptions& options, StepResult& r) {
  const Tensor logits = network.logits(w, hidden.index_select(0, input.rerank_rows)).to(torch::kFloat);
  const Tensor odds = logits.select(1, options.rerank_yes) - logits.select(1, options.rerank_no);  // [R]
  const Tensor none = torch::full({1}, kNoOdds, odds.options());
  const Tensor groups = torch::cat({odds, none}).index_select(0, input.rerank_groups.flatten());
  const Tensor table = groups.view_as(input.rerank_groups);  // [G, longest]
  const Tensor first = torch::zeros({table.size(0)}, input.rerank_groups.options());
  const Tensor among = F::cross_entropy(table, first);
  const Tensor is_there = input.rerank_groups < odds.size(0);
  Tensor is_right = torch::zeros_like(table);
  is_right.select(1, 0).fill_(1);
  const Tensor alone =
      F::binary_cross_entropy_with_logits(table.masked_select(is_there), is_right.masked_select(is_there));
  r.rerank_loss = among + alone;
  r.rerank_1 = (table.argmax(1) == 0).to(torch::kFloat).mean();
  r.loss = r.loss + options.rerank_weight * r.rerank_loss;
}

/// Memory of all documents: the pool with gradients, the extra negatives without.
std::vector<LayerMemory> encode_all(const Network& network, const NetworkTensors& w, const StepInput& input,
                                    Recompute recompute) {
  std::vector<LayerMemory> memory = network.encode(w, input.pool, input.chunks, recompute);
  if (!input.extra.tokens.defined()) return memory;
  torch::NoGradGuard no_gradients;
  const std::vector<LayerMemory> extra = network.encode(w, input.extra, input.extra_chunks, Recompute::kNone);
  for (size_t i = 0; i < memory.size(); ++i) {
    if (!memory[i].k.defined()) continue;
    const torch::AutoGradMode enabled(true);
    memory[i].k = torch::cat({memory[i].k, extra[i].k});
    memory[i].v = torch::cat({memory[i].v, extra[i].v});
    memory[i].router_k = torch::cat({memory[i].router_k, extra[i].router_k});
  }
  return memory;
}

}  // namespace

StepInput StepInput::from(const Batch& batch, const ModelConfig& config, torch::Device device) {
  const int P = config.memory.chunk_tokens;
  StepInput in;
  in.top_k = batch.top_k_documents;
  in.n_tokens = static_cast<int64_t>(batch.tokens.size() + batch.sample_tokens.size());
  const auto [tokens, starts] = part_of_pool(batch, 0, batch.n_trained);
  in.pool = Pack::from(tokens, starts, 0, device);
  in.chunks = Chunks::from(starts, P, device);
  std::vector<int64_t> documents = in.chunks.documents.starts;
  if (batch.n_trained < batch.documents()) {
    const auto [extra_tokens, extra_starts] = part_of_pool(batch, batch.n_trained, batch.documents());
    in.extra = Pack::from(extra_tokens, extra_starts, 0, device);
    in.extra_chunks = Chunks::from(extra_starts, P, device);
    const int64_t before = documents.back();
    const std::vector<int64_t>& more = in.extra_chunks.documents.starts;
    for (size_t i = 1; i < more.size(); ++i) documents.push_back(before + more[i]);
  }
  in.documents = RowOwners::from(std::move(documents), device);
  in.samples = samples_of(batch, config, device);
  in.targets = RoutingTargets::from(batch, device);
  std::vector<int64_t> rows, predicted;
  std::vector<float> cites;
  for (size_t s = 0; s + 1 < batch.sample_starts.size(); ++s) {
    for (int64_t row = batch.sample_starts[s] + 1; row < batch.sample_starts[s + 1]; ++row) {
      if (batch.predicted[static_cast<size_t>(row)] == 0) continue;
      rows.push_back(row - 1);
      predicted.push_back(batch.sample_tokens[static_cast<size_t>(row)]);
      cites.push_back(batch.kinds[s] == SampleKind::kRetrieve ? 1.0F : 0.0F);
    }
  }
  in.predicting_rows = longs(rows, device);
  in.predicted_tokens = longs(predicted, device);
  in.predicted_cites = torch::tensor(at::ArrayRef<float>(cites)).to(device, /*non_blocking=*/true);
  in.n_predicted = static_cast<int64_t>(cites.size());
  if (batch.rerank_starts.size() > 1) {
    std::vector<int64_t> last;
    for (int64_t s = batch.rerank_starts.front(); s < batch.rerank_starts.back(); ++s) {
      last.push_back(batch.sample_starts[static_cast<size_t>(s) + 1] - 1);
    }
    in.rerank_rows = longs(last, device);
    in.rerank_groups = padded(batch.rerank_starts, static_cast<int64_t>(last.size()), device);
  }
  in.n_predicted_cites = std::count(cites.begin(), cites.end(), 1.0F);
  return in;
}

StepResult losses_of(const Network& network, const NetworkTensors& w, const StepInput& input, const QueryResult& out,
                     const StepOptions& options) {
  StepResult r;
  add_language_losses(network, w, input, out.hidden, options.cite_weight, r);
  r.aux_loss = routing_loss(out.scores, input.targets, options.routing_loss, options.tau);
  r.loss = options.lm_weight * r.lm_loss + options.aux_weight * r.aux_loss;
  const Tensor mean = mean_score(out.scores, w.layer_weights);
  if (options.mean_weight > 0) {
    r.mean_loss = routing_loss({mean}, input.targets, options.routing_loss, options.mean_tau);
    r.loss = r.loss + options.aux_weight * options.mean_weight * r.mean_loss;
  }
  if (input.targets.teacher.defined()) {
    r.distillation = distillation_loss({mean}, input.targets, options.mean_tau, options.teacher_tau);
    r.loss = r.loss + options.distillation_weight * r.distillation;
  }
  const Tensor late = mean_score(out.late, w.layer_weights);
  add_losses_on(late, {options.late_tau, options.late_weight, options.late_distillation}, input.targets, options, r,
                r.late_loss, r.late_distillation);
  if (options.cited_weight > 0 || options.cited_distillation > 0) {
    const Tensor cited = mean / options.mean_tau + late / options.late_tau;
    add_losses_on(cited, {1, options.cited_weight, options.cited_distillation}, input.targets, options, r, r.cited_loss,
                  r.cited_distillation);
  }
  if (input.rerank_rows.defined()) add_rerank_loss(network, w, input, out.hidden, options, r);
  torch::NoGradGuard no_gradients;
  r.recall_1 = recall_at(mean, input.targets, 1);
  r.recall_16 = recall_at(mean, input.targets, kRanked);
  r.late_recall_1 = recall_at(best_again(mean, late, kRanked), input.targets, 1);
  return r;
}

StepResult run_step(const Network& network, const NetworkTensors& w, const StepInput& input,
                    const StepOptions& options) {
  const std::vector<LayerMemory> memory = encode_all(network, w, input, options.recompute);
  Network::QueryOptions query;
  query.top_k = input.top_k;
  if (options.attend_gold) query.preferred = input.targets.positive;
  return losses_of(network, w, input, network.query(w, memory, input.documents, input.samples, query), options);
}

}  // namespace msa::train
