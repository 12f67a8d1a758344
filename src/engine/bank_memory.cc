#include "engine/bank_memory.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace msa {
namespace {

/// content [chunks, 2 (K|V), G·d] → its K (0) or V (1) rows as [chunks, G, d].
Tensor half_of(const Tensor& content, int which, const ModelConfig& config) {
  const int64_t offset = int64_t{which} * config.kv_size() * traits(content.dtype).block_bytes;
  Tensor t(content.as<char>() + offset, content.dtype, {content.rows(), config.n_kv_heads, config.head_dim});
  t.row_bytes = content.row_bytes;
  return t;
}

}  // namespace

BankMemory::BankMemory(const ModelConfig& config, std::shared_ptr<const Snapshot> snapshot, int top_k,
                       std::vector<uint8_t> allowed)
    : config_(config),
      snapshot_(snapshot),
      router_(std::move(snapshot),
              config.memory.similarity == RouterSimilarity::kCosine ? Similarity::kCosine : Similarity::kScaledDot,
              config.n_heads),
      top_k_(top_k),
      allowed_(std::move(allowed)),
      scores_(config.memory.routing_layers.size()),
      selection_(config.memory.routing_layers.size()),
      content_(config.memory.routing_layers.size()) {
  MSA_CHECK(snapshot_->shape.routing_layers == config.memory.routing_layers);
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
  router_.score(context, static_cast<int>(i), q, scores_[i], allowed_);
  selection_[i] = router_.top_k(scores_[i], top_k_);
  content_[i].clear();
  for (const ScoredDocument& d : selection_[i]) {
    const Tensor content = snapshot_->segments[static_cast<size_t>(d.segment)]->content(static_cast<int>(i), d.index);
    content_[i].push_back({half_of(content, 0, config_), half_of(content, 1, config_)});
  }
  route_ms_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

std::span<const KeyValueSpan> BankMemory::gather(int layer) { return content_[index_of(layer)]; }

std::vector<ScoredDocument> BankMemory::routed(int count) const {
  if (scores_.empty() || scores_.front().empty()) return {};
  std::vector<float> mean(scores_.front().size(), 0.0f);
  for (const auto& layer : scores_) {
    for (size_t slot = 0; slot < mean.size(); ++slot) mean[slot] += layer[slot];
  }
  for (float& m : mean) m /= static_cast<float>(scores_.size());
  return router_.top_k(mean, count);
}

const std::vector<ScoredDocument>& BankMemory::selection(int routing_index) const {
  return selection_[static_cast<size_t>(routing_index)];
}

std::span<const float> BankMemory::scores(int routing_index) const {
  return scores_[static_cast<size_t>(routing_index)];
}

size_t BankMemory::slot_of(const ScoredDocument& document) const {
  int64_t slot = document.index;
  for (int i = 0; i < document.segment; ++i) slot += snapshot_->segments[static_cast<size_t>(i)]->n_documents();
  return static_cast<size_t>(slot);
}

}  // namespace msa
