#include "engine/bank_memory.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "core/copy.h"
#include "ops/best_scores.h"

namespace msa {
namespace {

constexpr size_t kMostSpans = 60;  // of one attention on a GPU, with some to spare

/// content [chunks, 2 (K|V), G·d] → its K (0) or V (1) rows as [chunks, G, d].
Tensor half_of(const Tensor& content, int which, const ModelConfig& config) {
  const int64_t offset = int64_t{which} * config.kv_size() * traits(content.dtype).block_bytes;
  Tensor t(content.as<char>() + offset, content.dtype, {content.rows(), config.n_kv_heads, config.head_dim},
           content.device);
  t.row_bytes = content.row_bytes;
  return t;
}

Similarity similarity_of(const ModelConfig& config) {
  switch (config.memory.similarity) {
    case RouterSimilarity::kCosine: return Similarity::kCosine;
    case RouterSimilarity::kScaledDot: return Similarity::kScaledDot;
  }
  return Similarity::kCosine;
}

}  // namespace

HeadFold head_fold(const ModelConfig& config, size_t routing_index) {
  return {similarity_of(config), config.n_heads, config.n_kv_heads, config.memory.layer_weight(routing_index)};
}

KeyValueSpan content_span(const Tensor& content, const ModelConfig& config) {
  return {half_of(content, 0, config), half_of(content, 1, config)};
}

BankMemory::BankMemory(const ModelConfig& config, std::shared_ptr<const Snapshot> snapshot, MemoryQuery query,
                       std::shared_ptr<const DeviceKeys> keys, std::shared_ptr<ContentCache> hot)
    : config_(config),
      snapshot_(snapshot),
      hot_(std::move(hot)),
      router_(std::move(snapshot)),
      query_(std::move(query)),
      scores_(config.memory.routing_layers.size()),
      selection_(config.memory.routing_layers.size()),
      content_(config.memory.routing_layers.size()),
      q_(config.memory.routing_layers.size()),
      q_memory_(config.memory.routing_layers.size()),
      content_memory_(config.memory.routing_layers.size()),
      in_use_(config.memory.routing_layers.size()) {
  MSA_CHECK(snapshot_->shape.routing_layers == config.memory.routing_layers);
  if (keys == nullptr) return;
  MSA_CHECK(keys->snapshot() == snapshot_);
  routing_ = std::make_unique<DeviceRouting>(
      std::move(keys), DeviceRouting::Query{static_cast<int>(n_layers()), query_.top_k, query_.allowed, query_.late});
}

size_t BankMemory::index_of(int layer) const {
  const auto& layers = config_.memory.routing_layers;
  const auto found = std::lower_bound(layers.begin(), layers.end(), layer);
  MSA_CHECK(found != layers.end() && *found == layer);
  return static_cast<size_t>(found - layers.begin());
}

void BankMemory::route(Context& context, int layer, const Tensor& q) {
  const auto start = std::chrono::steady_clock::now();
  const Tensor folded = fold_query(context, q, head_fold(config_, index_of(layer)), folded_memory_);
  route_ms_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  route_folded(context, layer, folded);
}

void BankMemory::route_folded(Context& context, int layer, const Tensor& folded) {
  const auto start = std::chrono::steady_clock::now();
  const size_t i = index_of(layer);
  finish_route();
  routed_on_ = &context;
  pending_ = static_cast<int>(i);
  if (routing_ != nullptr) {
    scores_[i].clear();
    routing_->route(context, pending_, folded);
  } else {
    const Tensor q = to_host(context, folded, host_q_);
    if (query_.late) {
      q_[i] = q_memory_[i].tensor(DType::kF32, {q.rows(), q.row_elements()});
      copy(context, q, q_[i]);
    }
    router_.score(context, pending_, q, scores_[i], query_.allowed);
  }
  route_ms_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  if (routing_ == nullptr) finish_route();
}

/// Waits for the choice of the layer routed last, and begins to fetch its documents' content.
void BankMemory::finish_route() {
  if (pending_ < 0) return;
  const auto start = std::chrono::steady_clock::now();
  const auto i = static_cast<size_t>(std::exchange(pending_, -1));
  if (routing_ != nullptr && query_.top_k <= kMostBestScores) {
    selection_[i] = documents_of(routing_->chosen());
  } else {
    selection_[i] = router_.top_k(scores(static_cast<int>(i)), query_.top_k);
  }
  choose(static_cast<int>(i), selection_[i]);
  fetch(i);
  route_ms_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

std::vector<ScoredDocument> BankMemory::documents_of(const std::vector<BestScore>& best) const {
  std::vector<ScoredDocument> out;
  for (const BestScore& b : best) {
    out.push_back(router_.slot(b.index));
    out.back().score = b.score;
  }
  return out;
}

void BankMemory::fetch(size_t i) {
  content_[i].clear();
  if (on_cuda(routed_on_->device)) {
    in_use_[i].clear();
    return hot_ != nullptr && selection_[i].size() <= kMostSpans ? fetch_hot(i) : upload_content(i);
  }
  for (const ScoredDocument& d : selection_[i]) {
    const Tensor content = snapshot_->segments[static_cast<size_t>(d.segment)]->content(static_cast<int>(i), d.index);
    content_[i].push_back(content_span(content, config_));
  }
}

/// One span a document. Those that are not on the GPU are read at once, a worker each, into page-locked memory.
void BankMemory::fetch_hot(size_t i) {
  struct Missing {
    size_t place;  // in the selection
    ContentKey key;
    int64_t row;  // in the staging
    Tensor content;
  };
  std::vector<Missing> missing;
  std::vector<Tensor> found(selection_[i].size());  // on the GPU
  int64_t rows = 0;
  for (size_t d = 0; d < selection_[i].size(); ++d) {
    const ScoredDocument& document = selection_[i][d];
    const Segment& segment = *snapshot_->segments[static_cast<size_t>(document.segment)];
    const ContentKey key{segment.checksum(), document.index, static_cast<int>(i)};
    const auto at = static_cast<size_t>(document.index);
    const int64_t chunks = segment.chunk_starts()[at + 1] - segment.chunk_starts()[at];
    found[d] = Tensor(nullptr, snapshot_->shape.dtype, {chunks, 2, config_.kv_size()}, routed_on_->device);
    if (const std::shared_ptr<Buffer>* here = hot_->find(key)) {
      in_use_[i].push_back(*here);
      found[d].data = (*here)->data();
    } else {
      missing.push_back({d, key, rows, {}});
      rows += chunks;
    }
  }
  const Tensor all = staging_.tensor(*routed_on_, snapshot_->shape.dtype, {rows, 2, config_.kv_size()});
  routed_on_->pool.parallel_for(static_cast<int64_t>(missing.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t m = begin; m < end; ++m) {
      Missing& one = missing[static_cast<size_t>(m)];
      const ScoredDocument& document = selection_[i][one.place];
      one.content =
          snapshot_->segments[static_cast<size_t>(document.segment)]->content(static_cast<int>(i), document.index);
      std::memcpy(all.row<char>(one.row), one.content.data, static_cast<size_t>(one.content.bytes()));
    }
  });
  for (const Missing& one : missing) {
    const auto block = std::make_shared<Buffer>();
    block->reserve(static_cast<size_t>(one.content.bytes()), routed_on_->device);
    found[one.place].data = block->data();
    copy(*routed_on_, all.slice_rows(one.row, one.row + one.content.rows()), found[one.place]);
    in_use_[i].push_back(block);
    hot_->put(one.key, block, one.content.bytes());
  }
  for (const Tensor& content : found) {
    content_[i].push_back(content_span(content, config_));
  }
}

/// The bank lies in host memory: the selected documents' content goes to the GPU in one piece, without a wait. The
/// choice of the next layer's documents waits for all work before it, so the piece can then be written again.
void BankMemory::upload_content(size_t i) {
  Context& context = *routed_on_;
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
  content_[i].push_back(content_span(content, config_));
}

std::span<const KeyValueSpan> BankMemory::gather(int layer) {
  finish_route();
  return content_[index_of(layer)];
}

std::vector<ScoredDocument> BankMemory::routed(int count) const {
  if (routing_ != nullptr && count > 0 && count <= kMostBestScores) return documents_of(routing_->best(count));
  if (n_layers() == 0 || scores(0).empty()) return {};
  std::vector<float> mean(scores(0).size(), 0.0f);
  for (int layer = 0; layer < n_layers(); ++layer) {
    const std::span<const float> one = scores(layer);
    for (size_t slot = 0; slot < mean.size(); ++slot) mean[slot] += one[slot];
  }
  for (float& m : mean) m /= static_cast<float>(n_layers());
  return router_.top_k(mean, count);
}

std::vector<float> BankMemory::late_scores(std::span<const ScoredDocument> documents) const {
  MSA_CHECK(query_.late);
  if (routed_on_ == nullptr) return {};
  std::vector<float> mean(documents.size(), 0.0f);
  Buffer host;
  for (size_t i = 0; i < q_.size(); ++i) {
    const int layer = static_cast<int>(i);
    const Tensor& q = routing_ == nullptr ? q_[i] : routing_->query(layer);
    const std::vector<float> one = router_.late_scores(layer, to_host(*routed_on_, q, host), documents);
    for (size_t d = 0; d < mean.size(); ++d) mean[d] += one[d] / static_cast<float>(q_.size());
  }
  return mean;
}

const std::vector<ScoredDocument>& BankMemory::selection(int routing_index) const {
  return selection_[static_cast<size_t>(routing_index)];
}

std::span<const float> BankMemory::scores(int routing_index) const {
  std::vector<float>& out = scores_[static_cast<size_t>(routing_index)];
  if (out.empty() && routing_ != nullptr && routing_->has_routed()) routing_->scores(routing_index, out);
  return out;
}

std::vector<float> BankMemory::layer_scores(const ScoredDocument& document) const {
  const size_t slot = slot_of(document);
  if (routing_ != nullptr && routing_->has_routed()) return routing_->layer_scores(static_cast<int64_t>(slot));
  std::vector<float> out(scores_.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = scores_[i][slot];
  return out;
}

DeviceRouting::Statistics BankMemory::statistics() const {
  return routing_ == nullptr ? DeviceRouting::Statistics() : routing_->statistics();
}

size_t BankMemory::slot_of(const ScoredDocument& document) const {
  int64_t slot = document.index;
  for (int i = 0; i < document.segment; ++i) slot += snapshot_->segments[static_cast<size_t>(i)]->n_documents();
  return static_cast<size_t>(slot);
}

}  // namespace msa
