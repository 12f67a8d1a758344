#include "train/device.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>
#include <torch/cuda.h>

#include <fstream>

#include "core/error.h"

#define MSA_TORCH_HAS_STATS (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 9))
#if MSA_TORCH_HAS_STATS
#include <ATen/DeviceAccelerator.h>
#endif

namespace msa::train {

torch::Device parse_device(const std::string& name, int local_rank) {
  if (name == "cpu" || (name == "auto" && !torch::cuda::is_available())) return torch::kCPU;
  if (name != "auto" && name != "cuda" && !name.starts_with("cuda:")) {
    throw Error("unknown device '" + name + "'", "--device", "use cpu, cuda or cuda:N");
  }
  if (!torch::cuda::is_available()) {
    throw Error("libtorch finds no CUDA device", "--device " + name,
                "use cpu, or build with -DMSA_TORCH_DIR naming a PyTorch with CUDA");
  }
  const auto count = static_cast<int>(torch::cuda::device_count());
  const torch::Device device = name.starts_with("cuda:")
                                   ? torch::Device(name)
                                   : torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(local_rank % count));
  if (device.index() >= count) {
    throw Error(fmt::format("there are {} CUDA devices", count), "--device " + name, "number them from 0");
  }
  c10::impl::VirtualGuardImpl(torch::kCUDA).setDevice(device);
  return device;
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
