#include "model/transformer.h"

#include <algorithm>
#include <utility>

#include "core/copy.h"
#include "ops/embedding.h"
#include "ops/norm_linear.h"
#include "ops/rms_norm.h"
#include "ops/upload_weight.h"

namespace msa {
namespace {

/// Matrices with the same inputs stacked into one [sum of out, in]: one product instead of several. Kept in the file's
/// own type when all share it (rows are whole quantisation blocks), else float32. The parts lie on one device.
Tensor stack_rows(Context& context, std::initializer_list<Tensor> parts, Buffer& memory) {
  const Tensor& first = *parts.begin();
  const int64_t in = first.dim(1);
  int64_t out = 0;
  bool same_type = true;
  for (const Tensor& p : parts) {
    out += p.rows();
    same_type = same_type && p.dtype == first.dtype;
  }
  MSA_CHECK(same_type || !on_cuda(first));
  const Tensor all = memory.tensor(same_type ? first.dtype : DType::kF32, {out, in}, first.device);
  int64_t row = 0;
  for (const Tensor& p : parts) {
    const Tensor target = all.slice_rows(row, row + p.rows());
    if (same_type)
      copy(context, p, target);
    else
      dequantise_rows(context, p, 0, p.rows(), target);
    row += p.rows();
  }
  return all;
}

Linear::Options linear_options(const Transformer::Options& options, const Tensor& weight) {
  Linear::Options o{options.format, options.decode};
  if (o.decode == DecodeFormat::kFile && !is_quantised(weight.dtype)) o.decode = DecodeFormat::kQ8_0;
  return o;
}

TransformerLayer prepare_layer(Context& context, const LayerWeights& w, const Transformer::Options& options) {
  const auto linear = [&](const Tensor& t) { return Linear(context, t, linear_options(options, t)); };
  const auto stacked = [&](std::initializer_list<Tensor> parts) {
    Buffer memory;
    return linear(stack_rows(context, parts, memory));
  };
  TransformerLayer layer;
  layer.input_norm = w.input_norm;
  layer.qkv = stacked({w.q, w.k, w.v});
  layer.q_norm = w.q_norm;
  layer.k_norm = w.k_norm;
  if (!w.router_q.empty()) {
    layer.router_q = linear(w.router_q);
    layer.router_k = linear(w.router_k);
  }
  layer.o = linear(w.o);
  layer.post_attention_norm = w.post_attention_norm;
  layer.gate_up = stacked({w.gate, w.up});
  layer.down = linear(w.down);
  return layer;
}

/// Columns [begin, begin + heads · d) of a matrix seen as heads: [T, heads, d] with the matrix's row stride.
Tensor heads_of(const Tensor& matrix, int64_t begin, int heads, int head_dim) {
  const Tensor columns = matrix.slice_columns(begin, begin + static_cast<int64_t>(heads) * head_dim);
  Tensor t(columns.data, columns.dtype, {columns.rows(), heads, head_dim}, columns.device);
  t.row_bytes = matrix.row_bytes;
  return t;
}

}  // namespace

Transformer::Transformer(Context& context, ModelWeights weights, const Options& options)
    : weights_(std::move(weights)),
      device_(context.device),
      rope_(weights_.config.head_dim, weights_.config.rope_theta, weights_.config.max_positions),
      activation_(options.format == LinearFormat::kBF16 ? DType::kBF16 : DType::kF32) {
  const bool tied = weights_.lm_head.data == weights_.embedding.data;
  if (tied) lm_head_ = Linear(context, weights_.lm_head, linear_options(options, weights_.lm_head));
  if (on_cuda(device_)) move_to_device(context);
  for (const LayerWeights& w : weights_.layers) {
    layers_.push_back(prepare_layer(context, w, options));
  }
  if (!tied) lm_head_ = Linear(context, weights_.lm_head, linear_options(options, weights_.lm_head));
  if (!on_cuda(device_)) return;
  synchronize(context);
  weights_.layers.clear();  // all of it lies on the device now
  weights_.owners.clear();
}

/// Embedding and norms; the matrices follow layer by layer.
void Transformer::move_to_device(Context& context) {
  const auto move = [&](Tensor& norm) {
    if (!norm.empty()) norm = to_device(context, norm, device_memory_.emplace_back());
  };
  if (lm_head_.empty())
    weights_.embedding = upload_weight(context, weights_.embedding, activation_, device_memory_.emplace_back());
  else
    weights_.embedding = lm_head_.device_weight();  // tied: one copy serves both
  move(weights_.final_norm);
  for (LayerWeights& w : weights_.layers) {
    for (Tensor* norm : {&w.input_norm, &w.q_norm, &w.k_norm, &w.post_attention_norm}) move(*norm);
  }
  rope_.prepare(context);
}

int64_t Transformer::decode_bytes() const {
  int64_t bytes = lm_head_.decode_bytes();
  for (const TransformerLayer& l : layers_) {
    bytes += l.qkv.decode_bytes() + l.o.decode_bytes() + l.gate_up.decode_bytes() + l.down.decode_bytes();
  }
  return bytes;
}

void Transformer::check_inputs(std::span<const int32_t> tokens, std::span<const int32_t> positions) const {
  MSA_CHECK(!tokens.empty() && tokens.size() == positions.size());
  const ModelConfig& c = config();
  for (const int32_t t : tokens) {
    if (t < 0 || t >= c.vocab) {
      throw Error("token id " + std::to_string(t) + " lies outside the vocabulary of " + std::to_string(c.vocab),
                  "model input", "use the tokenizer that belongs to this model");
    }
  }
  for (const int32_t p : positions) {
    if (p < 0 || p >= c.max_positions) {
      throw Error("position " + std::to_string(p) + " lies beyond the model's context of " +
                      std::to_string(c.max_positions) + " tokens",
                  "model input", "shorten the document or the question");
    }
  }
}

Tensor Transformer::forward(Context& context, Workspace& workspace, std::span<const int32_t> tokens,
                            std::span<const int32_t> positions, Stage& stage) const {
  return layers(context, workspace, prepare(context, workspace, tokens, positions, stage), stage);
}

ForwardInputs Transformer::prepare(Context& context, Workspace& workspace, std::span<const int32_t> tokens,
                                   std::span<const int32_t> positions, Stage& stage) const {
  check_inputs(tokens, positions);
  MSA_CHECK(context.device == device_);
  stage.begin(context);
  if (!on_cuda(device_)) return {tokens, positions};
  const auto n = static_cast<int64_t>(tokens.size());
  Staging& staging = workspace.host_indices[workspace.passes++ % workspace.host_indices.size()];
  const Tensor host = staging.tensor(context, DType::kI32, {2, n});
  std::copy(tokens.begin(), tokens.end(), host.row<int32_t>(0));
  std::copy(positions.begin(), positions.end(), host.row<int32_t>(1));
  const Tensor both = workspace.indices.tensor(DType::kI32, {2, n}, device_);
  copy(context, host, both);
  const auto row = [&](int64_t i) { return both.slice_rows(i, i + 1).reshape({n}); };
  return {{tokens, row(0)}, {positions, row(1)}};
}

Tensor Transformer::layers(Context& context, Workspace& workspace, const ForwardInputs& inputs, Stage& stage) const {
  const ModelConfig& c = config();
  const int64_t T = inputs.tokens.size();
  const DType qkv_type = on_cuda(device_) ? activation_ : DType::kF32;
  const Tensor x = workspace.x.tensor(DType::kF32, {T, c.hidden}, device_);
  const Tensor h = workspace.h.tensor(activation_, {T, c.hidden}, device_);
  const Tensor qkv = workspace.qkv.tensor(qkv_type, {T, c.q_size() + 2 * c.kv_size()}, device_);
  const Tensor q = heads_of(qkv, 0, c.n_heads, c.head_dim);
  const Tensor k = heads_of(qkv, c.q_size(), c.n_kv_heads, c.head_dim);
  const Tensor v = heads_of(qkv, c.q_size() + c.kv_size(), c.n_kv_heads, c.head_dim);
  const Tensor attention = workspace.attention.tensor(activation_, {T, c.n_heads, c.head_dim}, device_);
  const Tensor gate_up = workspace.gate_up.tensor(activation_, {T, 2 * c.intermediate}, device_);
  const Tensor mlp = workspace.mlp.tensor(activation_, {T, c.intermediate}, device_);

  embedding(context, weights_.embedding, inputs.tokens, x);
  for (int layer = 0; layer < c.n_layers; ++layer) {
    const TransformerLayer& w = layers_[static_cast<size_t>(layer)];
    norm_linear(context, {x, w.input_norm, c.rms_eps}, w.qkv, h, qkv);
    const NormRope how{&rope_, w.q_norm, w.k_norm, c.rms_eps};

    if (!stage.attend(context, {layer, &w, h, q, k, v, how, inputs.positions}, attention)) return x;
    w.o.forward(context, attention.reshape({T, c.q_size()}), x, /*accumulate=*/true);

    norm_gate_up(context, {x, w.post_attention_norm, c.rms_eps}, w.gate_up, h, gate_up, mlp);
    w.down.forward(context, mlp, x, /*accumulate=*/true);
  }
  return x;
}

void Transformer::final_norm(Context& context, const Tensor& x, const Tensor& out) const {
  rms_norm(context, x, weights_.final_norm, config().rms_eps, out);
}

void Transformer::logits(Context& context, Workspace& workspace, const Tensor& x, const Tensor& out) const {
  const Tensor h = workspace.logits_input.tensor(activation_, {x.rows(), config().hidden}, device_);
  norm_linear(context, {x, weights_.final_norm, config().rms_eps}, lm_head_, h, out);
}

}  // namespace msa
