// Where tensors live and ops run.
#pragma once
#include <string>

#include "core/tensor.h"

namespace msa {

/// Whether this build holds the CUDA code; whether there is a GPU shows at run time.
constexpr bool kHasCuda = MSA_HAS_CUDA;

inline bool on_cuda(const Tensor& t) { return t.device.type == DeviceType::kCuda; }
inline bool on_cuda(const Device& d) { return d.type == DeviceType::kCuda; }

/// "cpu", "cuda" or "cuda:1"; throws Error on another name.
Device parse_device(const std::string& name);

/// Why the device cannot be used, with what mends it; "" when it can.
std::string device_problem(Device device);

/// "NVIDIA H200"; the processor's name for the CPU. Throws Error where the device cannot be used.
std::string device_name(Device device);

}  // namespace msa
