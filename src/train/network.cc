#include "train/network.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace msa::train {
namespace {

namespace F = torch::nn::functional;

Tensor to_device(const Tensor& host, torch::Device device) { return host.to(device, /*non_blocking=*/true); }

template <class T>
Tensor to_tensor(const std::vector<T>& values, torch::Dtype type) {
  return torch::tensor(at::ArrayRef<T>(values)).to(type);
}

int64_t longest_of(const std::vector<int64_t>& starts) {
  int64_t longest = 0;
  for (size_t i = 0; i + 1 < starts.size(); ++i) longest = std::max(longest, starts[i + 1] - starts[i]);
  return longest;
}

/// Keys and values that each sample sees: [head; selected chunks; own tokens], packed. Sizes stay on the device.
struct VisibleRows {
  Tensor index;   // int64 [bound] rows of [own tokens; head; chunks]
  Tensor used;    // bool [bound, 1, 1]
  Tensor starts;  // int32 [Q + 1]
  int64_t longest = 0;
};

VisibleRows visible_rows(const Samples& samples, const Tensor& selected, const Tensor& is_selected,
                         const RowOwners& documents, int64_t head) {
  const torch::Device device = selected.device();
  const auto longs = torch::TensorOptions().dtype(torch::kLong).device(device);
  const Tensor starts = samples.pack.segments.q_starts.to(torch::kLong);
  const int64_t n = starts.size(0) - 1, own_rows = samples.pack.tokens.size(0);
  const int64_t longest = samples.pack.segments.longest_q;

  const Tensor head_rows = (torch::arange(head, longs) + own_rows).expand({n, head});
  const Tensor chunks = documents.padded.index_select(0, selected.flatten()).view({n, -1});  // [Q, k · longest]
  const Tensor chunk_there =
      (chunks < documents.starts.back()) &
      is_selected.unsqueeze(2).expand({n, selected.size(1), documents.padded.size(1)}).reshape({n, -1});
  const Tensor own = torch::arange(longest, longs).unsqueeze(0) + starts.slice(0, 0, n).unsqueeze(1);  // [Q, longest]
  const Tensor own_there = own < starts.slice(0, 1, n + 1).unsqueeze(1);

  const Tensor rows = torch::cat({head_rows, chunks + own_rows + head, own}, 1);  // [Q, width]
  const Tensor there = torch::cat({torch::ones_like(head_rows, torch::kBool), chunk_there, own_there}, 1);
  const int64_t bound = n * (head + chunks.size(1)) + own_rows;
  const Tensor place = there.flatten().cumsum(0) - 1;  // where each row that is there goes
  VisibleRows out;
  const Tensor target = torch::where(there.flatten(), place, torch::full_like(place, bound));
  // Rows behind the last stay unread; they point here and there so that their (zero) gradients do not pile up.
  const Tensor filler = torch::arange(bound + 1, longs).remainder(own_rows);
  out.index = filler.scatter(0, target, rows.flatten()).slice(0, 0, bound);
  const Tensor count = there.sum(1);
  out.starts = torch::constant_pad_nd(count.cumsum(0), {1, 0}, 0).to(torch::kInt);
  out.used = (torch::arange(bound, longs) < count.sum()).view({bound, 1, 1});
  out.longest = head + chunks.size(1) + longest;
  return out;
}

/// Rows by index. Behind the last used row the fused attention leaves its gradient unset: cut it off here.
Tensor take_rows(const Tensor& source, const VisibleRows& rows) {
  const Tensor taken = source.index_select(0, rows.index);
  return torch::where(rows.used, taken, torch::zeros({1}, taken.options()));
}

}  // namespace

Pack Pack::from(const std::vector<int32_t>& tokens, const std::vector<int64_t>& starts, int64_t offset,
                torch::Device device) {
  std::vector<int64_t> positions(tokens.size());
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    std::iota(positions.begin() + starts[s], positions.begin() + starts[s + 1], offset);
  }
  Pack pack;
  pack.tokens = to_device(to_tensor(tokens, torch::kLong), device);
  pack.positions = to_device(to_tensor(positions, torch::kLong), device);
  pack.segments.q_starts = to_device(to_tensor(starts, torch::kInt), device);
  pack.segments.k_starts = pack.segments.q_starts;
  pack.segments.longest_q = pack.segments.longest_k = longest_of(starts);
  return pack;
}

Chunks Chunks::from(const std::vector<int64_t>& starts, int chunk_tokens, torch::Device device) {
  MSA_CHECK(starts.size() >= 2);
  std::vector<int64_t> chunk_starts, document_starts{0};
  std::vector<float> counts;
  for (size_t s = 1; s + 1 < starts.size(); ++s) {
    for (int64_t at = starts[s]; at < starts[s + 1]; at += chunk_tokens) {
      chunk_starts.push_back(at);
      counts.push_back(static_cast<float>(std::min<int64_t>(chunk_tokens, starts[s + 1] - at)));
    }
    document_starts.push_back(static_cast<int64_t>(chunk_starts.size()));
  }
  chunk_starts.push_back(starts.back());
  Chunks chunks;
  chunks.head = chunk_starts.front();
  chunks.starts = to_device(to_tensor(chunk_starts, torch::kInt), device);
  chunks.documents = RowOwners::from(std::move(document_starts), device);
  chunks.counts = to_device(to_tensor(counts, torch::kFloat).unsqueeze(1), device);
  return chunks;
}

std::pair<Tensor, Tensor> Network::rotation(const Tensor& positions) const {
  const int d = config_.head_dim;
  const Tensor steps = torch::arange(0, d, 2, torch::TensorOptions().dtype(torch::kFloat).device(positions.device()));
  const Tensor frequencies = torch::pow(config_.rope_theta, -steps / d);
  const Tensor angles = positions.to(torch::kFloat).unsqueeze(1) * frequencies;  // [T, d / 2]
  return {angles.cos(), angles.sin()};
}

Network::Projections Network::project(const LayerTensors& w, const Tensor& x, const Tensor& cosine,
                                      const Tensor& sine) const {
  Projections p;
  p.h = rms_norm(x, w.input_norm, config_.rms_eps);
  const HeadShape shape{config_.n_heads, config_.n_kv_heads, config_.head_dim};
  p.heads = split_heads(F::linear(p.h, w.qkv), cosine, sine, shape, {w.q_norm, w.k_norm, config_.rms_eps});
  return p;
}

Tensor Network::finish(const LayerTensors& w, const Tensor& x, const Tensor& attention) const {
  const auto [after, h] = add_rms_norm(x, F::linear(attention.flatten(1), w.o), w.post_attention_norm, config_.rms_eps);
  return after + F::linear(silu_mul(F::linear(h, w.gate_up)), w.down);
}

LayerMemory Network::pool(const LayerTensors& w, const Projections& p, const Chunks& chunks, bool routing) const {
  LayerMemory m;
  m.head_k = p.heads.k.slice(0, 0, chunks.head);
  m.head_v = p.heads.v.slice(0, 0, chunks.head);
  if (!routing) return m;
  const int64_t groups = config_.n_kv_heads, d = config_.head_dim;
  const auto chunk_mean = [&](const Tensor& rows) {  // [T, G·d] → float32 [chunks, G, d]
    return run_means(rows, chunks.starts, chunks.counts).view({-1, groups, d});
  };
  m.k = chunk_mean(p.heads.k.flatten(1)).to(type_);
  m.v = chunk_mean(p.heads.v.flatten(1)).to(type_);
  Tensor keys = chunk_mean(F::linear(p.h, w.router_k));
  if (config_.memory.similarity == RouterSimilarity::kCosine) {
    keys = F::normalize(keys, F::NormalizeFuncOptions().dim(-1));
  }
  m.router_k = keys.flatten(1).to(type_);
  return m;
}

Tensor Network::routing_queries(const LayerTensors& w, const Tensor& h) const {
  const int64_t groups = config_.n_kv_heads, d = config_.head_dim;
  Tensor q = F::linear(h, w.router_q).view({-1, groups, config_.n_heads / groups, d}).to(torch::kFloat);
  if (config_.memory.similarity == RouterSimilarity::kCosine) {
    q = F::normalize(q, F::NormalizeFuncOptions().dim(-1));
  } else {
    q = q / std::sqrt(static_cast<double>(d));
  }
  // The mean over heads is linear in the key: sum the query heads of each key head first.
  return (q.sum(2) / config_.n_heads).flatten(1).to(type_);
}

std::vector<LayerMemory> Network::encode(const NetworkTensors& w, const Pack& pack, const Chunks& chunks,
                                         Recompute mode) const {
  const auto [cosine, sine] = rotation(pack.positions);
  Tensor x = torch::embedding(w.embedding, pack.tokens);
  std::vector<LayerMemory> memory;
  for (int layer = 0; layer < config_.n_layers; ++layer) {
    const bool last = layer + 1 == config_.n_layers, routing = config_.is_routing(layer);
    // The whole layer as a function of its input and its weights; it may run again when all else here is gone.
    const TensorFunction run = [self = *this, c = cosine, s = sine, last, routing, pack,
                                chunks](const std::vector<Tensor>& in) -> std::vector<Tensor> {
      const LayerTensors l{in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8], in[9], in[10]};
      const Projections p = self.project(l, in[0], c, s);
      const LayerMemory m = self.pool(l, p, chunks, routing);
      std::vector<Tensor> out{m.head_k, m.head_v};
      if (routing) out.insert(out.end(), {m.k, m.v, m.router_k});
      // Nothing needs the last layer's attention and MLP.
      if (!last) out.push_back(self.finish(l, in[0], ragged_attention(p.heads.q, p.heads.k, p.heads.v, pack.segments)));
      return out;
    };
    const LayerTensors& l = w.layers[static_cast<size_t>(layer)];
    const std::vector<Tensor> in{x,          l.input_norm,          l.qkv,     l.o,   l.q_norm, l.k_norm, l.router_q,
                                 l.router_k, l.post_attention_norm, l.gate_up, l.down};
    const std::vector<Tensor> out = recomputed(run, in, mode);
    LayerMemory m{out[0], out[1], {}, {}, {}};
    if (routing) m.k = out[2], m.v = out[3], m.router_k = out[4];
    memory.push_back(m);
    if (!last) x = out.back();
  }
  return memory;
}

QueryResult Network::query(const NetworkTensors& w, const std::vector<LayerMemory>& memory, const RowOwners& documents,
                           const Samples& samples, const QueryOptions& options) const {
  const auto [cosine, sine] = rotation(samples.pack.positions);
  const int64_t head = memory.front().head_k.size(0);
  const int64_t top_k = std::min<int64_t>(options.top_k, documents.size());
  const Tensor none = torch::zeros({samples.attends.size(0), 1}, samples.pack.tokens.options());
  const VisibleRows unrouted = visible_rows(samples, none, torch::zeros_like(none, torch::kBool), documents, head);

  QueryResult result;
  Tensor x = torch::embedding(w.embedding, samples.pack.tokens);
  for (int layer = 0; layer < config_.n_layers; ++layer) {
    const LayerTensors& l = w.layers[static_cast<size_t>(layer)];
    const LayerMemory& m = memory[static_cast<size_t>(layer)];
    const Projections p = project(l, x, cosine, sine);
    Tensor k = torch::cat({p.heads.k, m.head_k}), v = torch::cat({p.heads.v, m.head_v});
    VisibleRows rows = unrouted;
    if (config_.is_routing(layer)) {
      const Tensor queries = routing_queries(l, p.h.index_select(0, samples.routed_rows));
      const DocumentScores scores = routing_scores(queries, samples.routed, m.router_k, documents);
      result.scores.push_back(scores.best);
      result.late.push_back(scores.late);
      Tensor choice = result.scores.back().detach();
      if (options.preferred.defined()) choice = choice + 10.0 * options.preferred.to(torch::kFloat);
      if (samples.only.defined()) choice = choice.masked_fill(~samples.only, kNoScore);
      const auto [best, selected] = choice.topk(top_k, 1);
      rows = visible_rows(samples, selected, (best > kNoScore / 2) & samples.attends, documents, head);
      k = torch::cat({k, m.k});
      v = torch::cat({v, m.v});
    }
    const Segments segments{samples.pack.segments.q_starts, rows.starts, samples.pack.segments.longest_q, rows.longest};
    x = finish(l, x, ragged_attention(p.heads.q, take_rows(k, rows), take_rows(v, rows), segments));
  }
  result.hidden = x;
  return result;
}

Tensor mean_score(const std::vector<Tensor>& scores, const Tensor& layer_weights) {
  return (torch::stack(scores) * layer_weights.view({-1, 1, 1})).sum(0);
}

Tensor Network::logits(const NetworkTensors& w, const Tensor& hidden) const {
  return F::linear(rms_norm(hidden, w.final_norm, config_.rms_eps), w.lm_head);
}

}  // namespace msa::train
