#include "core/staging.h"

#include <algorithm>
#include <utility>

#include "core/cuda.h"
#include "core/device.h"

namespace msa {

Staging& Staging::operator=(Staging&& other) noexcept {
  std::swap(plain_, other.plain_);
  std::swap(pinned_, other.pinned_);
  std::swap(capacity_, other.capacity_);
  std::swap(index_, other.index_);
  return *this;
}

Staging::~Staging() {
  if constexpr (kHasCuda) {
    if (pinned_ != nullptr) cuda_release_pinned(index_, pinned_);
  }
}

Tensor Staging::tensor(const Context& context, DType dtype, std::initializer_list<int64_t> dims) {
  if (!on_cuda(context.device)) return plain_.tensor(dtype, dims);
  Tensor t(nullptr, dtype, dims);
  if constexpr (kHasCuda) {
    const auto bytes = static_cast<size_t>(t.bytes()) + 1;
    if (bytes > capacity_ || index_ != context.device.index) {
      const size_t larger = std::max(bytes, 2 * capacity_);
      if (pinned_ != nullptr) cuda_release_pinned(index_, std::exchange(pinned_, nullptr));
      capacity_ = 0;
      index_ = context.device.index;
      pinned_ = cuda_allocate_pinned(index_, larger);
      capacity_ = larger;
    }
    t.data = pinned_;
  }
  return t;
}

}  // namespace msa
