// The two stages of Memory Sparse Attention behind the shared layer loop: encoding documents, attending to memory.
#include <algorithm>

#include "core/copy.h"
#include "model/transformer.h"
#include "ops/chunk_mean.h"
#include "ops/convert.h"
#include "ops/embedding.h"

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
    if (routed[t] != 0) routed_rows_.push_back(static_cast<int32_t>(t));
  }
}

void QueryStage::begin(Context& context) {
  routed_ = upload(context, routed_rows_, routed_memory_);
  cache_.begin(context);
}

void QueryStage::route(Context& context, const LayerActivations& in) {
  if (in.weights->router_q.empty()) fail_without_router(in.layer);
  const auto n = static_cast<int64_t>(routed_rows_.size());
  const Tensor h = routed_h_.tensor(in.h.dtype, {n, config_.hidden}, context.device);
  gather_rows(context, in.h, routed_, h);
  const Tensor q = router_q_.tensor(DType::kF32, {n, config_.q_size()}, context.device);
  in.weights->router_q.forward(context, h, q);
  memory_->route(context, in.layer, q);
}

bool QueryStage::attend(Context& context, const LayerActivations& in, const Tensor& out) {
  const int tokens = static_cast<int>(in.h.rows());
  const auto add_local = [&] {
    in.rotate(context);
    cache_.append(context, in.layer, in.k, in.v);
  };
  const bool has_memory = memory_ != nullptr && config_.is_routing(in.layer);
  const bool routes = has_memory && !routed_rows_.empty();
  if (routes) {
    route(context, in);
    add_local();  // runs while the choice of documents comes and their content is read
  }
  std::span<const KeyValueSpan> selected;
  if (has_memory) selected = memory_->gather(in.layer);
  const DecodeCache* decoding = routes ? nullptr : cache_.decoding(in.layer);
  const DecodeInput token{in.q, in.k, in.v, in.how, in.positions.device};
  if (decoding != nullptr && decode_fits(token, selected, *decoding)) {
    decode_attention(context, token, selected, *decoding, out);
  } else {
    is_repeatable_ = false;
    if (!routes) add_local();
    prefixed_attention(context, in.q, selected, cache_.view(in.layer, cache_.length() + tokens), out);
  }
  if (in.layer == config_.n_layers - 1) cache_.advance(tokens);
  return true;
}

EncodeStage::EncodeStage(const ModelConfig& config, std::span<const int64_t> starts, EncodeMemory& memory,
                         bool keep_last_layer)
    : config_(config),
      starts_(starts),
      keep_last_layer_(keep_last_layer),
      n_chunks_(count_chunks(starts, config.memory.chunk_tokens)),
      memory_(memory) {}

EncodeStage::Pooled EncodeStage::slice(const Tensor& all, int64_t routing_index) const {
  const auto part = [&](int64_t which) {
    return Tensor(all.row<char>(3 * routing_index + which), all.dtype, {n_chunks_, config_.kv_size()}, all.device);
  };
  return {part(0), part(1), part(2)};
}

EncodeStage::Pooled EncodeStage::pooled(int routing_index) const {
  MSA_CHECK(!results_.empty() && !on_cuda(results_));
  return slice(results_, routing_index);
}

void EncodeStage::finish(Context& context, DType dtype) {
  if (results_.empty()) return;
  if (results_.dtype != dtype) {
    const Tensor converted = memory_.converted.tensor(dtype, {results_.rows(), results_.dim(1)}, results_.device);
    convert(context, results_, converted);
    results_ = converted;
  }
  done_ = mark(context);
}

void EncodeStage::download(Context& context) {
  if (!results_.empty()) results_ = to_host_after(context, done_.get(), results_, memory_.host);
}

void EncodeStage::pool(Context& context, const LayerActivations& in, const Pooled& out) {
  if (in.weights->router_k.empty()) fail_without_router(in.layer);
  const int64_t T = in.h.rows();
  const int n = config_.kv_size();
  const int chunk = config_.memory.chunk_tokens;
  const auto flat = [&](const Tensor& heads) {  // [T, G, d] → [T, G·d]
    Tensor t(heads.data, heads.dtype, {T, n}, heads.device);
    t.row_bytes = heads.row_bytes;
    return t;
  };
  const Tensor router_k = memory_.router_k.tensor(DType::kF32, {T, n}, context.device);
  in.weights->router_k.forward(context, in.h, router_k);
  chunk_mean(context, flat(in.k), sequences_, chunk, out.k);
  chunk_mean(context, flat(in.v), sequences_, chunk, out.v);
  chunk_mean(context, router_k, sequences_, chunk, out.router_k);
  if (config_.memory.similarity == RouterSimilarity::kCosine) {
    l2_normalize_heads(context, out.router_k.reshape({n_chunks_, config_.n_kv_heads, config_.head_dim}));
  }
}

void EncodeStage::begin(Context& context) {
  sequences_ = upload(context, starts_, config_.memory.chunk_tokens, memory_.sequences);
  const auto rows = static_cast<int64_t>(3 * config_.memory.routing_layers.size());
  if (rows > 0) results_ = memory_.results.tensor(DType::kF32, {rows, n_chunks_ * config_.kv_size()}, context.device);
}

bool EncodeStage::attend(Context& context, const LayerActivations& in, const Tensor& out) {
  in.rotate(context);
  if (config_.is_routing(in.layer)) {
    const auto& layers = config_.memory.routing_layers;
    const auto index = std::lower_bound(layers.begin(), layers.end(), in.layer) - layers.begin();
    pool(context, in, slice(results_, index));
  }
  const bool rest_is_needed = keep_last_layer_ || in.layer + 1 < config_.n_layers;
  if (rest_is_needed) packed_causal_attention(context, in.q, in.k, in.v, sequences_, out);
  return rest_is_needed;
}

}  // namespace msa
