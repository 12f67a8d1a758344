// Where training runs.
#pragma once
#include <torch/torch.h>

#include <string>

namespace msa::train {

/// "cpu", "cuda", "cuda:1" or "auto" (CUDA when there is a device). Where no GPU is numbered, the ranks of a host take
/// its GPUs in turn. The GPU becomes the thread's current one. Throws Error when it is not there.
torch::Device parse_device(const std::string& name, int local_rank = 0);

/// Most memory taken so far, bytes: by tensors on a CUDA device (0 where libtorch does not tell), else by the process.
int64_t peak_memory(const torch::Device& device);

}  // namespace msa::train
