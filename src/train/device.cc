#include "train/device.h"

#include <torch/cuda.h>

#include <fstream>

#include "core/error.h"

#define MSA_TORCH_HAS_STATS (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 9))
#if MSA_TORCH_HAS_STATS
#include <ATen/DeviceAccelerator.h>
#endif

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

int64_t peak_memory(const torch::Device& device) {
  if (device.is_cuda()) {
#if MSA_TORCH_HAS_STATS
    const auto stats = at::accelerator::getDeviceStats(device.has_index() ? device.index() : c10::DeviceIndex{0});
    return stats.allocated_bytes[0].peak;  // 0: all pools together
#else
    return 0;
#endif
  }
  std::ifstream status("/proc/self/status");
  std::string key;
  while (status >> key) {
    int64_t kib = 0;
    if (key == "VmHWM:" && status >> kib) return kib << 10;
    std::getline(status, key);
  }
  return 0;
}

}  // namespace msa::train
