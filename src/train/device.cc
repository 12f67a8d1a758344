#include "train/device.h"

#include <torch/cuda.h>

#include "core/error.h"

namespace msa::train {

torch::Device parse_device(const std::string& name) {
  if (name == "cpu" || (name == "auto" && !torch::cuda::is_available())) return torch::kCPU;
  if (name != "auto" && name != "cuda" && !name.starts_with("cuda:")) {
    throw Error("unknown device '" + name + "'", "--device", "use cpu, cuda or cuda:N");
  }
  if (!torch::cuda::is_available()) {
    throw Error("libtorch finds no CUDA device", "--device " + name,
                "use cpu, or build with -DMSA_TORCH_DIR naming a PyTorch with CUDA");
  }
  return torch::Device(name == "auto" ? "cuda" : name);
}

void synchronize(const torch::Device& device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.has_index() ? device.index() : -1);
}

}  // namespace msa::train
