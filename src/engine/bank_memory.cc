#include "engine/bank_memory.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "core/copy.h"
#include "ops/best_scores.h"

namespace msa {
namespace {

/// content [chunks, 2 (K|V), G·d] → its K (0) or V (1) rows as [chunks, G, d].
Tensor half_of(const Tensor& content, int which, const ModelConfig& config) {
  const int64_t offset = int64_t{which} * config.kv_size() * traits(content.dtype).block_bytes;
  Tensor t(content.as<char>() + offset, content.dtype, {content.rows(), config.n_kv_heads, config.head_dim},
           content.device);
  t.row_bytes = content.row_bytes;
  return t;
}

}  // namespace

BankMemory::BankMemory(const ModelConfig& config, std::shared_ptr<const Snapshot> snapshot, int top_k,
                       std::vector<uint8_t> allowed, std::shared_ptr<const DeviceKeys> keys)
    : config_(config),
      snapshot_(snapshot),
      keys_(std::move(keys)),
      similarity_(config.memory.similarity == RouterSimilarity::kCosine ? Similarity::kCosine : Similarity::kScaledDot),
      router_(std::move(snapshot), similarity_, config.n_heads),
      top_k_(top_k),
      allowed_(std::move(allowed)),
      scores_(config.memory.routing_layers.size()),
      selection_(config.memory.routing_layers.size()),
      content_(config.memory.routing_layers.size()),
      content_memory_(config.memory.routing_layers.size()) {
  MSA_CHECK(snapshot_->shape.routing_layers == config.memory.routing_layers);
  MSA_CHECK(keys_ == nullptr || keys_->snapshot() == snapshot_);
}

size_t BankMemory::index_of(int layer) const {
  const auto& layers = config_.memory.routing_layers;
  const auto found = std::lower_bound(layers.begin(), layers.end(), layer);
  MSA_CHECK(found != layers.end() && *found == layer);
  return static_cast<size_t>(found - layers.begin());
}

void BankMemory::route(Context& context, int layer, const Tensor& q) {
  const auto start = std::chrono::steady_clock::now();
  const size_t i = index_of(layer);
  if (keys_ != nullptr) {
    route_on_device(context, i, q);
  } else {
    router_.score(context, static_cast<int>(i), to_host(context, q, host_q_), scores_[i], allowed_);
    selection_[i] = router_.top_k(scores_[i], top_k_);
  }
  choose(static_cast<int>(i), selection_[i]);
  content_[i].clear();
  if (on_cuda(context.device)) {
    upload_content(context, i);
  } else {
    for (const ScoredDocument& d : selection_[i]) {
      const Tensor content = snapshot_->segments[static_cast<size_t>(d.segment)]->content(static_cast<int>(i), d.index);
      content_[i].push_back({half_of(content, 0, config_), half_of(content, 1, config_)});
    }
  }
  route_ms_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

void BankMemory::route_on_device(Context& context, size_t i, const Tensor& q) {
  const int64_t slots = router_.n_slots();
  if (device_scores_.empty()) {
    device_scores_ = device_scores_memory_.tensor(DType::kF32, {n_layers(), slots}, context.device);
    if (!allowed_.empty()) {
      device_allowed_ =
          to_device(context, Tensor::of_const(allowed_.data(), DType::kI8, {slots}), device_allowed_memory_);
    }
  }
  routed_on_ = &context;
  scores_[i].clear();
  const Tensor row = device_scores_.slice_rows(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1);
  keys_->score(context, static_cast<int>(i), q, {similarity_, config_.n_heads, device_allowed_}, row.reshape({slots}));
  selection_[i].clear();
  if (top_k_ > kMostBestScores)
    selection_[i] = router_.top_k(scores(static_cast<int>(i)), top_k_);
  else if (top_k_ > 0)
    selection_[i] = best_on_device(row, top_k_);
}

/// scores F32 [layers, slots] on the GPU: the best by their mean.
std::vector<ScoredDocument> BankMemory::best_on_device(const Tensor& scores, int count) const {
  std::vector<ScoredDocument> out;
  for (const BestScore& best : best_mean_scores(*routed_on_, scores, count)) {
    out.push_back(router_.slot(best.index));
    out.back().score = best.score;
  }
  return out;
}

/// The bank lies in host memory: the selected documents' content goes to the GPU in one piece, without a wait. The
/// choice of the next layer's documents waits for all work before it, so the piece can then be written again.
void BankMemory::upload_content(Context& context, size_t i) {
  std::vector<Tensor> parts;  // [chunks, 2 (K|V), G·d]
  int64_t chunks = 0;
  for (const ScoredDocument& d : selection_[i]) {
    parts.push_back(snapshot_->segments[static_cast<size_t>(d.segment)]->content(static_cast<int>(i), d.index));
    chunks += parts.back().rows();
  }
  if (chunks == 0) return;
  const Tensor all = staging_.tensor(context, parts.front().dtype, {chunks, 2, config_.kv_size()});
  int64_t row = 0;
  for (const Tensor& part : parts) {
    std::memcpy(all.row<char>(row), part.data, static_cast<size_t>(part.bytes()));
    row += part.rows();
  }
  const Tensor content = to_device(context, all, content_memory_[i]);
  content_[i].push_back({half_of(content, 0, config_), half_of(content, 1, config_)});
}

std::span<const KeyValueSpan> BankMemory::gather(int layer) { return content_[index_of(layer)]; }

std::vector<ScoredDocument> BankMemory::routed(int count) const {
  if (keys_ != nullptr && count > 0 && count <= kMostBestScores) {
    return device_scores_.empty() ? std::vector<ScoredDocument>() : best_on_device(device_scores_, count);
  }
  if (n_layers() == 0 || scores(0).empty()) return {};
  std::vector<float> mean(scores(0).size(), 0.0f);
  for (int layer = 0; layer < n_layers(); ++layer) {
    const std::span<const float> one = scores(layer);
    for (size_t slot = 0; slot < mean.size(); ++slot) mean[slot] += one[slot];
  }
  for (float& m : mean) m /= static_cast<float>(n_layers());
  return router_.top_k(mean, count);
}

const std::vector<ScoredDocument>& BankMemory::selection(int routing_index) const {
  return selection_[static_cast<size_t>(routing_index)];
}

std::span<const float> BankMemory::scores(int routing_index) const {
  std::vector<float>& out = scores_[static_cast<size_t>(routing_index)];
  if (out.empty() && !device_scores_.empty()) {
    const int64_t slots = device_scores_.dim(1);
    out.resize(static_cast<size_t>(slots));
    copy(*routed_on_, device_scores_.slice_rows(routing_index, routing_index + 1),
         Tensor(out.data(), DType::kF32, {1, slots}));
  }
  return out;
}

std::vector<float> BankMemory::layer_scores(const ScoredDocument& document) const {
  const size_t slot = slot_of(document);
  std::vector<float> out(scores_.size());
  if (device_scores_.empty()) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = scores_[i][slot];
  } else {
    const auto at = static_cast<int64_t>(slot);
    copy(*routed_on_, device_scores_.slice_columns(at, at + 1), Tensor(out.data(), DType::kF32, {n_layers(), 1}));
  }
  return out;
}

size_t BankMemory::slot_of(const ScoredDocument& document) const {
  int64_t slot = document.index;
  for (int i = 0; i < document.segment; ++i) slot += snapshot_->segments[static_cast<size_t>(i)]->n_documents();
  return static_cast<size_t>(slot);
}

}  // namespace msa
