// The one place where training attends. Fused on CUDA with PyTorch 2, plain elsewhere.
#pragma once
#include <torch/torch.h>

#include <cstdint>

namespace msa::train {

/// Sequences packed one after another; sequence s holds query rows [q_starts[s], q_starts[s + 1]) and key rows
/// [k_starts[s], k_starts[s + 1]).
struct Segments {
  torch::Tensor q_starts, k_starts;      // int32 [n + 1], on the device
  int64_t longest_q = 0, longest_k = 0;  // bounds
};

/// Causal attention inside each sequence: its last query row sees all its keys, the row before all but one, … (so keys
/// that come before the sequence's own tokens are seen by all of them).
/// q [T, H, d], k, v [S, G, d], H a multiple of G → [T, H, d]. Rows of k, v behind the last start are never read.
torch::Tensor ragged_attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                               const Segments& segments);

}  // namespace msa::train
