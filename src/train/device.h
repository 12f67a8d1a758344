// Where training runs.
#pragma once
#include <torch/torch.h>

#include <string>

namespace msa::train {

/// "cpu", "cuda", "cuda:1" or "auto" (CUDA when there is a device). Throws Error when it is not there.
torch::Device parse_device(const std::string& name);

/// Most memory taken so far, bytes: by tensors on a CUDA device (0 where libtorch does not tell), else by the process.
int64_t peak_memory(const torch::Device& device);

}  // namespace msa::train
