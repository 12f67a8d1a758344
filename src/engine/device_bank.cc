#include "engine/device_bank.h"

#include <limits>

namespace msa {

std::shared_ptr<ContentCache> DeviceBank::content(const Context& context) {
  if (!on_cuda(context.device)) return nullptr;
  if (content_ == nullptr) {
    const int64_t most = options_.gpu_memory > 0 ? options_.gpu_memory : std::numeric_limits<int64_t>::max();
    content_ = std::make_shared<ContentCache>(DeviceOptions::content_share(most));
  }
  return content_;
}

}  // namespace msa
