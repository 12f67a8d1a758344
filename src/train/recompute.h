// Gradient checkpointing: keep a function's inputs instead of what lies inside it, and run it again in the backward
// pass.
#pragma once
#include <torch/torch.h>

#include <functional>
#include <vector>

namespace msa::train {

using TensorFunction = std::function<std::vector<torch::Tensor>(const std::vector<torch::Tensor>&)>;

enum class Recompute {
  kNone,     // keep what lies inside
  kKeep,     // keep the inputs
  kOffload,  // keep the first input (the activations) in host memory, the others where they are
};

/// function(inputs), with the same values and gradients. The function must be pure: everything it differentiates comes
/// in through `inputs` (undefined tensors allowed).
std::vector<torch::Tensor> recomputed(const TensorFunction& function, const std::vector<torch::Tensor>& inputs,
                                      Recompute mode);

}  // namespace msa::train
