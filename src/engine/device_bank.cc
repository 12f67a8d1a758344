#include "engine/device_bank.h"

#include <algorithm>

#include "core/cuda.h"

namespace msa {

std::shared_ptr<ContentCache> DeviceBank::content(const Context& context) {
  if (!on_cuda(context.device)) return nullptr;
  if (content_ == nullptr) {
    int64_t most = options_.gpu_memory;
    if constexpr (kHasCuda) {
      const auto all = static_cast<int64_t>(cuda_bytes(context.device.index).total);
      most = most > 0 ? std::min(most, all) : all;
    }
    content_ = std::make_shared<ContentCache>(DeviceOptions::content_share(most));
  }
  return content_;
}

}  // namespace msa
