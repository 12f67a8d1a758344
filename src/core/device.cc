#include "core/device.h"

#include <charconv>

#include "core/cpu.h"
#include "core/cuda.h"

namespace msa {

Device parse_device(const std::string& name) {
  if (name == "cpu") return {};
  if (name == "cuda") return {DeviceType::kCuda, 0};
  if (name.starts_with("cuda:")) {
    int index = -1;
    const char* const end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + 5, end, index);
    if (error == std::errc() && stop == end && index >= 0) return {DeviceType::kCuda, index};
  }
  throw Error("unknown device '" + name + "'", "--device", "use cpu, cuda or cuda:N");
}

std::string device_problem(Device device) {
  if (!on_cuda(device)) return "";
  if constexpr (kHasCuda) {
    try {
      open_cuda(device.index);
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  }
  return "this build holds no CUDA code (fix: build where nvcc of a CUDA toolkit is found)";
}

std::string device_name(Device device) {
  if (!on_cuda(device)) return cpu_name();
  if constexpr (kHasCuda) return cuda_name(device.index);
  throw Error("this build holds no CUDA code", "--device", "build where nvcc of a CUDA toolkit is found, or use cpu");
}

}  // namespace msa
