// The parts of a layer between its matrix products. On CUDA in bf16 each is one kernel forward and one backward
// (fused_kernels.cu); everywhere else it is composed of libtorch's own operations, which are the reference.
#pragma once
#include <torch/torch.h>

#include <utility>

namespace msa::train {

/// The fused kernels can be left out, to compare them with the composition.
void use_fused_kernels(bool enabled);

/// x [T, n] over its root mean square, times weight float32 [n] → [T, n] in x's type; computed in float32.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps);

/// x + y [T, n], and its rms_norm: the residual stream behind attention, and the input of the MLP.
std::pair<torch::Tensor, torch::Tensor> add_rms_norm(const torch::Tensor& x, const torch::Tensor& y,
                                                     const torch::Tensor& weight, double eps);

/// The heads of one product.
struct HeadShape {
  int64_t n_heads = 0, n_kv_heads = 0, head_dim = 0;  // H, G, d
};

/// Norms of query and key heads (Qwen3), float32 [d]; undefined for Llama.
struct HeadNorms {
  torch::Tensor q, k;
  double eps = 0;
};

struct Heads {
  torch::Tensor q, k, v;  // [T, H, d], [T, G, d] twice
};

/// qkv [T, (H + 2G)·d] → normed and rotated queries and keys, and values. cosine, sine: float32 [T, d / 2].
Heads split_heads(const torch::Tensor& qkv, const torch::Tensor& cosine, const torch::Tensor& sine,
                  const HeadShape& shape, const HeadNorms& norms);

/// gate_up [T, 2·n] → silu(gate) · up [T, n].
torch::Tensor silu_mul(const torch::Tensor& gate_up);

/// Means of consecutive runs of rows: x [T, n], starts int32 [C + 1] on the device, counts float32 [C, 1] = the lengths
/// of the runs → float32 [C, n]. Rows before the first start and behind the last are left out.
torch::Tensor run_means(const torch::Tensor& x, const torch::Tensor& starts, const torch::Tensor& counts);

}  // namespace msa::train
