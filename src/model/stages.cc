// The two stages of Memory Sparse Attention behind the shared layer loop: encoding documents, attending to memory.
#include <algorithm>
#include <cstring>

#include "model/transformer.h"
#include "ops/chunk_mean.h"

namespace msa {
namespace {

[[noreturn]] void fail_without_router(int layer) {
  throw Error("layer " + std::to_string(layer) + " is a routing layer, but the model has no router weights for it",
              "model directory", "add the adapter (adapter.safetensors) that holds router_q_proj and router_k_proj");
}

}  // namespace

QueryStage::QueryStage(const ModelConfig& config, KvCache& cache, Memory* memory, std::span<const uint8_t> routed)
    : config_(config), cache_(cache), memory_(memory) {
  for (size_t t = 0; t < routed.size(); ++t) {
    if (routed[t] != 0) routed_rows_.push_back(static_cast<int64_t>(t));
  }
}

void QueryStage::route(Context& context, const LayerActivations& in) {
  if (in.weights->router_q.empty()) fail_without_router(in.layer);
  const auto n = static_cast<int64_t>(routed_rows_.size());
  const Tensor h = routed_h_.tensor(in.h.dtype, {n, config_.hidden});
  for (int64_t i = 0; i < n; ++i) {
    std::memcpy(h.row<char>(i), in.h.row<char>(routed_rows_[static_cast<size_t>(i)]),
                static_cast<size_t>(h.dense_row_bytes()));
  }
  const Tensor q = router_q_.tensor(DType::kF32, {n, config_.q_size()});
  in.weights->router_q.forward(context, h, q);
  memory_->route(context, in.layer, q);
}

bool QueryStage::attend(Context& context, const LayerActivations& in, const Tensor& out) {
  const int tokens = static_cast<int>(in.h.rows());
  cache_.append(in.layer, in.k, in.v);
  const KeyValueSpan local = cache_.view(in.layer, cache_.length() + tokens);
  std::span<const KeyValueSpan> selected;
  if (memory_ != nullptr && config_.is_routing(in.layer)) {
    if (!routed_rows_.empty()) route(context, in);
    selected = memory_->gather(in.layer);
  }
  prefixed_attention(context, in.q, selected, local, out);
  if (in.layer == config_.n_layers - 1) cache_.advance(tokens);
  return true;
}

EncodeStage::EncodeStage(const ModelConfig& config, std::span<const int64_t> starts, bool keep_last_layer)
    : config_(config),
      starts_(starts),
      keep_last_layer_(keep_last_layer),
      n_chunks_(count_chunks(starts, config.memory.chunk_tokens)),
      pooled_(config.memory.routing_layers.size()) {}

void EncodeStage::pool(Context& context, const LayerActivations& in, Pooled& out) {
  if (in.weights->router_k.empty()) fail_without_router(in.layer);
  const int64_t T = in.h.rows();
  const int n = config_.kv_size();
  const int chunk = config_.memory.chunk_tokens;
  const auto flat = [&](const Tensor& heads) {  // [T, G, d] → [T, G·d]
    Tensor t(heads.data, heads.dtype, {T, n});
    t.row_bytes = heads.row_bytes;
    return t;
  };
  const Tensor router_k = router_k_.tensor(DType::kF32, {T, n});
  in.weights->router_k.forward(context, in.h, router_k);
  chunk_mean(context, flat(in.k), starts_, chunk, out.k.tensor(DType::kF32, {n_chunks_, n}));
  chunk_mean(context, flat(in.v), starts_, chunk, out.v.tensor(DType::kF32, {n_chunks_, n}));
  const Tensor keys = out.router_k.tensor(DType::kF32, {n_chunks_, n});
  chunk_mean(context, router_k, starts_, chunk, keys);
  if (config_.memory.similarity == RouterSimilarity::kCosine) {
    l2_normalize_heads(context, keys.reshape({n_chunks_, config_.n_kv_heads, config_.head_dim}));
  }
}

bool EncodeStage::attend(Context& context, const LayerActivations& in, const Tensor& out) {
  if (config_.is_routing(in.layer)) {
    const auto& layers = config_.memory.routing_layers;
    const auto index = std::lower_bound(layers.begin(), layers.end(), in.layer) - layers.begin();
    pool(context, in, pooled_[static_cast<size_t>(index)]);
  }
  const bool rest_is_needed = keep_last_layer_ || in.layer + 1 < config_.n_layers;
  if (rest_is_needed) packed_causal_attention(context, in.q, in.k, in.v, starts_, out);
  return rest_is_needed;
}

}  // namespace msa
