#include "train/layer_ops.h"

#include <atomic>
#include <cstdint>

#include "train/fused_kernels.h"

namespace msa::train {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::atomic<bool> fused_kernels_are_used{true};

/// The kernels move eight bf16 numbers at a time.
bool takes(const Tensor& x) {
  return fused_kernels_are_used && x.is_cuda() && x.scalar_type() == torch::kBFloat16 && x.size(-1) % 8 == 0;
}

Bf16Bits* bits(const Tensor& t) { return t.defined() ? static_cast<Bf16Bits*>(t.data_ptr()) : nullptr; }
float* floats(const Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; }

/// As the kernels read it: dense, and on 16 bytes.
Tensor dense(const Tensor& t) {
  if (!t.defined()) return t;
  const Tensor d = t.contiguous();
  return reinterpret_cast<uintptr_t>(d.data_ptr()) % 16 == 0 ? d : d.clone();
}

// --- rms_norm ---

Tensor composed_rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const Tensor wide = x.to(torch::kFloat);
  return (wide * torch::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps) * weight).to(x.scalar_type());
}

/// Gradient of a norm's weight, float32 [n].
Tensor weight_gradient(const Tensor& x, const Tensor& scale, const Tensor& out_gradient) {
  return (out_gradient.to(torch::kFloat) * x.to(torch::kFloat) * scale.unsqueeze(1)).sum(0);
}

/// x (and y where it is defined) → out, x + y or x itself, scale.
variable_list fused_norm(const Tensor& x, const Tensor& y, const Tensor& weight, double eps) {
  const Tensor sum = y.defined() ? torch::empty_like(x) : Tensor(), out = torch::empty_like(x);
  const Tensor scale = torch::empty({x.size(0)}, x.options().dtype(torch::kFloat));
  fused_rms_norm({bits(x), bits(y), floats(weight), bits(sum), bits(out), floats(scale), x.size(0), x.size(1),
                  static_cast<float>(eps)});
  return {out, y.defined() ? sum : x, scale};
}

/// saved: what was normed, weight, scale. `other`: gradient that reaches what was normed by other ways, or undefined.
Tensor fused_norm_gradient(const variable_list& saved, const Tensor& out_gradient, const Tensor& other) {
  const Tensor& x = saved[0];
  const Tensor gradient = torch::empty_like(x);
  fused_rms_norm_backward({bits(x), floats(saved[1]), floats(saved[2]), bits(out_gradient), bits(other), bits(gradient),
                           x.size(0), x.size(1)});
  return gradient;
}

class FusedRmsNorm : public torch::autograd::Function<FusedRmsNorm> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, double eps) {
    const variable_list out = fused_norm(dense(x), Tensor(), dense(weight), eps);
    context->save_for_backward({out[1], dense(weight), out[2]});
    return out[0];
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor out_gradient = dense(gradients[0]);
    return {fused_norm_gradient(saved, out_gradient, Tensor()),
            context->needs_input_grad(1) ? weight_gradient(saved[0], saved[2], out_gradient) : Tensor(), Tensor()};
  }
};

class FusedAddRmsNorm : public torch::autograd::Function<FusedAddRmsNorm> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& x, const Tensor& y, const Tensor& weight,
                               double eps) {
    const variable_list out = fused_norm(dense(x), dense(y), dense(weight), eps);
    context->save_for_backward({out[1], dense(weight), out[2]});
    return {out[1], out[0]};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor out_gradient = dense(gradients[1]);
    const Tensor gradient = fused_norm_gradient(saved, out_gradient, dense(gradients[0]));
    return {gradient, gradient,
            context->needs_input_grad(2) ? weight_gradient(saved[0], saved[2], out_gradient) : Tensor(), Tensor()};
  }
};

// --- split_heads ---

/// x [T, heads, d]: halves rotated against each other by the angle of each token's position.
Tensor rotated(const Tensor& x, const Tensor& cosine, const Tensor& sine) {
  const auto halves = x.to(torch::kFloat).chunk(2, -1);
  const Tensor c = cosine.unsqueeze(1), s = sine.unsqueeze(1);
  return torch::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1).to(x.scalar_type());
}

Heads composed_split_heads(const Tensor& qkv, const Tensor& cosine, const Tensor& sine, const HeadShape& shape,
                           const HeadNorms& norms) {
  const int64_t d = shape.head_dim;
  const auto parts =
      qkv.view({qkv.size(0), -1, d}).split_with_sizes({shape.n_heads, shape.n_kv_heads, shape.n_kv_heads}, 1);
  Tensor q = parts[0], k = parts[1];
  if (norms.q.defined()) {
    q = composed_rms_norm(q, norms.q, norms.eps);
    k = composed_rms_norm(k, norms.k, norms.eps);
  }
  return {rotated(q, cosine, sine), rotated(k, cosine, sine), parts[2]};
}

/// What does not depend on gradients: angles and norms.
struct HeadTables {
  Tensor cosine, sine, q_norm, k_norm;
};

SplitHeads split_heads_arguments(const Tensor& qkv, const HeadTables& tables, const HeadShape& shape, double eps) {
  SplitHeads p{};
  p.qkv = bits(qkv);
  p.cosine = floats(tables.cosine), p.sine = floats(tables.sine);
  p.q_norm = floats(tables.q_norm), p.k_norm = floats(tables.k_norm);
  p.rows = tables.cosine.size(0);
  p.n_heads = static_cast<int>(shape.n_heads), p.n_kv_heads = static_cast<int>(shape.n_kv_heads);
  p.head_dim = static_cast<int>(shape.head_dim);
  p.eps = static_cast<float>(eps);
  return p;
}

class FusedSplitHeads : public torch::autograd::Function<FusedSplitHeads> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& given, const HeadTables& tables,
                               const HeadShape& shape, double eps) {
    const Tensor qkv = dense(given);
    const int64_t rows = qkv.size(0), d = shape.head_dim;
    const Tensor q = torch::empty({rows, shape.n_heads, d}, qkv.options());
    const Tensor k = torch::empty({rows, shape.n_kv_heads, d}, qkv.options()), v = torch::empty_like(k);
    SplitHeads p = split_heads_arguments(qkv, tables, shape, eps);
    p.q = bits(q), p.k = bits(k), p.v = bits(v);
    fused_split_heads(p);
    context->saved_data["shape"] = std::vector<int64_t>{shape.n_heads, shape.n_kv_heads, d};
    context->saved_data["eps"] = eps;
    // Without norms the backward pass is a rotation alone and needs nothing of qkv.
    context->save_for_backward(
        {tables.q_norm.defined() ? qkv : Tensor(), tables.cosine, tables.sine, tables.q_norm, tables.k_norm});
    return {q, k, v};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const std::vector<int64_t> sizes = context->saved_data["shape"].toIntVector();
    const HeadShape shape{sizes[0], sizes[1], sizes[2]};
    const Tensor q = dense(gradients[0]), k = dense(gradients[1]), v = dense(gradients[2]);
    const Tensor gradient =
        torch::empty({q.size(0), (shape.n_heads + 2 * shape.n_kv_heads) * shape.head_dim}, q.options());
    SplitHeads p = split_heads_arguments(saved[0], {saved[1], saved[2], saved[3], saved[4]}, shape,
                                         context->saved_data["eps"].toDouble());
    p.q = bits(q), p.k = bits(k), p.v = bits(v);
    p.qkv_grad = bits(gradient);
    fused_split_heads_backward(p);
    return {gradient, Tensor(), Tensor(), Tensor()};
  }
};

// --- silu_mul ---

class FusedSiluMul : public torch::autograd::Function<FusedSiluMul> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& given) {
    const Tensor gate_up = dense(given);
    const Tensor out = torch::empty({gate_up.size(0), gate_up.size(1) / 2}, gate_up.options());
    fused_silu_mul({bits(gate_up), bits(out), nullptr, nullptr, out.size(0), out.size(1)});
    context->save_for_backward({gate_up});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const Tensor gate_up = context->get_saved_variables()[0];
    const Tensor out_gradient = dense(gradients[0]), gradient = torch::empty_like(gate_up);
    fused_silu_mul_backward(
        {bits(gate_up), nullptr, bits(out_gradient), bits(gradient), out_gradient.size(0), out_gradient.size(1)});
    return {gradient};
  }
};

// --- run_means ---

Tensor composed_run_means(const Tensor& x, const Tensor& starts, const Tensor& counts) {
  // Row t belongs to the last run that starts at or before it; rows outside go to one more.
  const Tensor rows = torch::arange(x.size(0), starts.options());
  const Tensor run = torch::bucketize(rows, starts, /*out_int32=*/false, /*right=*/true) - 1;
  const int64_t n = counts.size(0);
  const Tensor target = torch::where(run < 0, torch::full_like(run, n), run);
  const Tensor sums = torch::zeros({n + 1, x.size(1)}, x.options().dtype(torch::kFloat));
  return sums.index_add(0, target, x.to(torch::kFloat)).slice(0, 0, n) / counts;
}

class FusedRunMeans : public torch::autograd::Function<FusedRunMeans> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& given, const Tensor& starts) {
    const Tensor x = dense(given);
    const int64_t runs = starts.size(0) - 1, n = x.size(1);
    const Tensor means = torch::empty({runs, n}, x.options().dtype(torch::kFloat));
    fused_run_means({bits(x), starts.data_ptr<int32_t>(), floats(means), nullptr, runs, n});
    context->saved_data["rows"] = x.size(0);
    context->save_for_backward({starts});
    return means;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const Tensor starts = context->get_saved_variables()[0], g = dense(gradients[0]);
    const int64_t rows = context->saved_data["rows"].toInt(), runs = g.size(0), n = g.size(1);
    const Tensor gradient = torch::zeros({rows, n}, g.options().dtype(torch::kBFloat16));
    fused_run_means_backward({nullptr, starts.data_ptr<int32_t>(), floats(g), bits(gradient), runs, n});
    return {gradient, Tensor()};
  }
};

}  // namespace

void use_fused_kernels(bool enabled) { fused_kernels_are_used = enabled; }

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  if constexpr (kHasFusedKernels) {
    if (takes(x)) return FusedRmsNorm::apply(x, weight, eps);
  }
  return composed_rms_norm(x, weight, eps);
}

std::pair<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& y, const Tensor& weight, double eps) {
  if constexpr (kHasFusedKernels) {
    if (takes(x)) {
      const variable_list out = FusedAddRmsNorm::apply(x, y, weight, eps);
      return {out[0], out[1]};
    }
  }
  const Tensor sum = x + y;
  return {sum, composed_rms_norm(sum, weight, eps)};
}

Heads split_heads(const Tensor& qkv, const Tensor& cosine, const Tensor& sine, const HeadShape& shape,
                  const HeadNorms& norms) {
  if constexpr (kHasFusedKernels) {
    // The gradient of the norms' own weights is left to the composition.
    const bool norms_are_trained = norms.q.defined() && (norms.q.requires_grad() || norms.k.requires_grad());
    if (takes(qkv) && fused_split_heads_takes(shape.head_dim) && !norms_are_trained) {
      const HeadTables tables{dense(cosine), dense(sine), dense(norms.q), dense(norms.k)};
      const variable_list out = FusedSplitHeads::apply(qkv, tables, shape, norms.eps);
      return {out[0], out[1], out[2]};
    }
  }
  return composed_split_heads(qkv, cosine, sine, shape, norms);
}

Tensor silu_mul(const Tensor& gate_up) {
  if constexpr (kHasFusedKernels) {
    if (takes(gate_up) && gate_up.size(1) % 16 == 0) return FusedSiluMul::apply(gate_up);
  }
  const auto parts = gate_up.chunk(2, 1);
  return torch::silu(parts[0]) * parts[1];
}

Tensor run_means(const Tensor& x, const Tensor& starts, const Tensor& counts) {
  if constexpr (kHasFusedKernels) {
    if (takes(x)) return FusedRunMeans::apply(x, starts);
  }
  return composed_run_means(x, starts, counts);
}

}  // namespace msa::train
