// Each operation in bf16 on each device, values and gradients, against the composition in float32 on the CPU.
#include "train/layer_ops.h"

#include <functional>
#include <vector>

#include "devices.h"
#include "train/attention.h"

namespace msa::train {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;
using Op = std::function<Tensors(const Tensors&)>;

constexpr double kBf16 = 1.0 / 256;  // one unit in the last place, relative

double distance(const Tensor& actual, const Tensor& expected) {
  const Tensor a = actual.detach().to(torch::kCPU, torch::kDouble),
               e = expected.detach().to(torch::kCPU, torch::kDouble);
  return ((a - e).norm() / (e.norm() + 1e-30)).item<double>();
}

struct Evaluated {
  Tensors outputs, gradients;
};

/// Outputs for `inputs`, and the gradients of Σ weight · output.
Evaluated evaluate(const Op& op, const Tensors& inputs, const Tensors& weights) {
  Tensors leaves;
  for (const Tensor& t : inputs) leaves.push_back(t.detach().clone().set_requires_grad(true));
  Evaluated e;
  e.outputs = op(leaves);
  Tensors seeds;
  for (size_t i = 0; i < e.outputs.size(); ++i) seeds.push_back(weights[i].to(e.outputs[i].options()));
  e.gradients = torch::autograd::grad(e.outputs, leaves, seeds);
  return e;
}

class LayerOps : public OnDevice {
 protected:
  /// `rounded` inputs are bf16 on the device, the others stay float32. `op` makes its constants on its inputs' device.
  void expect_close(const Op& op, const Tensors& inputs, const Tensors& others, double tolerance) {
    Tensors exact, here;
    for (const Tensor& t : inputs) {
      here.push_back(t.to(device_, torch::kBFloat16));
      exact.push_back(here.back().to(torch::kCPU, torch::kFloat));
    }
    for (const Tensor& t : others) here.push_back(t.to(device_)), exact.push_back(t);
    Tensors weights;
    for (const Tensor& t : op(exact))
      weights.push_back(torch::randn_like(t.detach()).to(torch::kBFloat16).to(torch::kFloat));
    const Evaluated want = evaluate(op, exact, weights), got = evaluate(op, here, weights);
    for (size_t i = 0; i < want.outputs.size(); ++i) {
      EXPECT_LT(distance(got.outputs[i], want.outputs[i]), tolerance) << "output " << i;
    }
    for (size_t i = 0; i < want.gradients.size(); ++i) {
      EXPECT_LT(distance(got.gradients[i], want.gradients[i]), tolerance) << "gradient of input " << i;
    }
  }
};

MSA_ON_EVERY_DEVICE(LayerOps);

TEST_P(LayerOps, RmsNorm) {
  torch::manual_seed(11);
  for (const int64_t n : {8, 64, 576, 2560}) {
    for (const int64_t rows : {1, 9, 33}) {
      const Op norm = [](const Tensors& in) { return Tensors{rms_norm(in[0], in[1], 1e-5)}; };
      expect_close(norm, {torch::randn({rows, n})}, {torch::randn({n})}, kBf16);
      const Op add = [](const Tensors& in) {
        const auto [sum, out] = add_rms_norm(in[0], in[1], in[2], 1e-5);
        return Tensors{sum, out};
      };
      expect_close(add, {torch::randn({rows, n}), torch::randn({rows, n})}, {torch::randn({n})}, 2 * kBf16);
    }
  }
}

TEST_P(LayerOps, SplitHeads) {
  torch::manual_seed(12);
  for (const HeadShape shape : {HeadShape{9, 3, 64}, HeadShape{4, 2, 128}, HeadShape{2, 1, 16}}) {
    for (const bool normed : {false, true}) {
      const int64_t rows = 37, width = (shape.n_heads + 2 * shape.n_kv_heads) * shape.head_dim;
      const Tensor angles = torch::randn({rows, shape.head_dim / 2});
      const Tensor norm = torch::rand({2, shape.head_dim}) + 0.5;
      const Op split = [&](const Tensors& in) {
        const torch::Device at = in[0].device();
        HeadNorms norms;
        if (normed) norms = {norm[0].to(at), norm[1].to(at), 1e-6};
        const Heads h = split_heads(in[0], angles.cos().to(at), angles.sin().to(at), shape, norms);
        return Tensors{h.q, h.k, h.v};
      };
      expect_close(split, {torch::randn({rows, width})}, {}, 2 * kBf16);
    }
  }
}

TEST_P(LayerOps, SiluMul) {
  torch::manual_seed(13);
  const Op op = [](const Tensors& in) { return Tensors{silu_mul(in[0])}; };
  for (const int64_t n : {16, 1536}) expect_close(op, {torch::randn({21, 2 * n}) * 3}, {}, 2 * kBf16);
}

TEST_P(LayerOps, RunMeans) {
  torch::manual_seed(14);
  const std::vector<int> starts{3, 67, 131, 140, 141, 205, 210};
  for (const int64_t n : {8, 192, 1024}) {
    const Op op = [&](const Tensors& in) {
      const Tensor s = torch::tensor(starts, torch::kInt);
      const Tensor counts = (s.slice(0, 1) - s.slice(0, 0, -1)).to(torch::kFloat).unsqueeze(1);
      return Tensors{run_means(in[0], s.to(in[0].device()), counts.to(in[0].device()))};
    };
    expect_close(op, {torch::randn({214, n})}, {}, kBf16);  // three rows before the first run, four behind the last
  }
}

TEST_P(LayerOps, AttentionWithPrefixesAndRowsBehindTheLast) {
  torch::manual_seed(15);
  Segments s;
  const Tensor q_starts = torch::tensor({0, 1, 40, 200}, torch::kInt),
               k_starts = torch::tensor({0, 30, 69, 400}, torch::kInt);
  s.longest_q = 160;
  s.longest_k = 500;  // a bound, not the longest
  for (const int64_t d : {16, 64, 128}) {
    const Op op = [&](const Tensors& in) {
      Segments here = s;
      here.q_starts = q_starts.to(in[0].device()), here.k_starts = k_starts.to(in[0].device());
      // Rows behind the last start are never read, and their gradient is nothing.
      const Tensor used = torch::arange(450, torch::TensorOptions().device(in[0].device())).view({450, 1, 1}) < 400;
      const Tensor nothing = torch::zeros({1}, in[1].options());
      return Tensors{
          ragged_attention(in[0], torch::where(used, in[1], nothing), torch::where(used, in[2], nothing), here)};
    };
    expect_close(op, {torch::randn({200, 6, d}), torch::randn({450, 2, d}), torch::randn({450, 2, d})}, {}, 3 * kBf16);
  }
}

TEST_P(LayerOps, FusedKernelsAndCompositionAgree) {
  torch::manual_seed(16);
  const auto x = torch::randn({50, 128}).to(device_, torch::kBFloat16);
  const auto weight = torch::rand({128}).to(device_);
  const Tensor fused = rms_norm(x, weight, 1e-5);
  use_fused_kernels(false);
  const Tensor composed = rms_norm(x, weight, 1e-5);
  use_fused_kernels(true);
  EXPECT_LT(distance(fused, composed), kBf16);
}

}  // namespace
}  // namespace msa::train
