#include "model/transformer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "ops/chunk_mean.h"
#include "ops/embedding.h"
#include "ops/rms_norm.h"
#include "ops/silu_mul.h"

namespace msa {
namespace {

/// Matrices with the same inputs stacked into one [sum of out, in]: one product instead of several. Kept in the file's
/// own type when all share it (rows are whole quantisation blocks), else float32.
Tensor stack_rows(Context& context, std::initializer_list<Tensor> parts, Buffer& memory) {
  const Tensor& first = *parts.begin();
  const int64_t in = first.dim(1);
  int64_t out = 0;
  bool same_type = true;
  for (const Tensor& p : parts) {
    out += p.rows();
    same_type = same_type && p.dtype == first.dtype;
  }
  const Tensor all = memory.tensor(same_type ? first.dtype : DType::kF32, {out, in});
  int64_t row = 0;
  for (const Tensor& p : parts) {
    const Tensor target = all.slice_rows(row, row + p.rows());
    if (same_type)
      std::memcpy(target.data, p.data, static_cast<size_t>(p.bytes()));
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
  Tensor t(columns.data, columns.dtype, {columns.rows(), heads, head_dim});
  t.row_bytes = matrix.row_bytes;
  return t;
}

}  // namespace

Transformer::Transformer(Context& context, ModelWeights weights, const Options& options)
    : weights_(std::move(weights)),
      rope_(weights_.config.head_dim, weights_.config.rope_theta, weights_.config.max_positions),
      activation_(options.format == LinearFormat::kBF16 ? DType::kBF16 : DType::kF32) {
  for (const LayerWeights& w : weights_.layers) {
    layers_.push_back(prepare_layer(context, w, options));
  }
  lm_head_ = Linear(context, weights_.lm_head, linear_options(options, weights_.lm_head));
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
  check_inputs(tokens, positions);
  const ModelConfig& c = config();
  const auto T = static_cast<int64_t>(tokens.size());
  const Tensor x = workspace.x.tensor(DType::kF32, {T, c.hidden});
  const Tensor h = workspace.h.tensor(activation_, {T, c.hidden});
  const Tensor qkv = workspace.qkv.tensor(DType::kF32, {T, c.q_size() + 2 * c.kv_size()});
  const Tensor q = heads_of(qkv, 0, c.n_heads, c.head_dim);
  const Tensor k = heads_of(qkv, c.q_size(), c.n_kv_heads, c.head_dim);
  const Tensor v = heads_of(qkv, c.q_size() + c.kv_size(), c.n_kv_heads, c.head_dim);
  const Tensor attention = workspace.attention.tensor(activation_, {T, c.n_heads, c.head_dim});
  const Tensor gate_up = workspace.gate_up.tensor(activation_, {T, 2 * c.intermediate});
  const Tensor mlp = workspace.mlp.tensor(activation_, {T, c.intermediate});

  embedding(context, weights_.embedding, tokens, x);
  for (int layer = 0; layer < c.n_layers; ++layer) {
    const TransformerLayer& w = layers_[static_cast<size_t>(layer)];
    rms_norm(context, x, w.input_norm, c.rms_eps, h);
    w.qkv.forward(context, h, qkv);
    if (!w.q_norm.empty()) {
      rms_norm_heads(context, q, w.q_norm, c.rms_eps);
      rms_norm_heads(context, k, w.k_norm, c.rms_eps);
    }
    rope(context, rope_, positions, q);
    rope(context, rope_, positions, k);

    if (!stage.attend(context, {layer, &w, h, q, k, v}, attention)) return x;
    w.o.forward(context, attention.reshape({T, c.q_size()}), x, /*accumulate=*/true);

    rms_norm(context, x, w.post_attention_norm, c.rms_eps, h);
    w.gate_up.forward(context, h, gate_up);
    silu_mul(context, gate_up.slice_columns(0, c.intermediate),
             gate_up.slice_columns(c.intermediate, 2 * c.intermediate), mlp);
    w.down.forward(context, mlp, x, /*accumulate=*/true);
  }
  return x;
}

void Transformer::final_norm(Context& context, const Tensor& x, const Tensor& out) const {
  rms_norm(context, x, weights_.final_norm, config().rms_eps, out);
}

void Transformer::logits(Context& context, Workspace& workspace, const Tensor& x, const Tensor& out) const {
  const Tensor h = workspace.logits_input.tensor(activation_, {x.rows(), config().hidden});
  final_norm(context, x, h);
  lm_head_.forward(context, h, out);
}

}  // namespace msa
