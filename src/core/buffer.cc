#include "core/buffer.h"

#include <cstdlib>
#include <string>

#include "core/cuda.h"
#include "core/device.h"

namespace msa {
namespace {

constexpr size_t kAlignment = 64;

void* allocate(size_t bytes, [[maybe_unused]] Device device) {
  if (on_cuda(device)) {
    if constexpr (kHasCuda) return cuda_allocate(device.index, bytes);
    MSA_CHECK(false && "memory of a GPU in a build without CUDA");
  }
  void* p = std::aligned_alloc(kAlignment, bytes);
  if (p == nullptr) {
    throw Error("out of memory: " + std::to_string(bytes >> 20) + " MiB could not be allocated", "host memory",
                "use a smaller batch or a machine with more memory");
  }
  return p;
}

}  // namespace

void Buffer::Free::operator()(void* p) const {
  if constexpr (kHasCuda) {
    if (on_cuda(device)) return cuda_release(device.index, p);
  }
  std::free(p);
}

void Buffer::reserve(size_t bytes, Device device) {
  if (bytes <= capacity_ && device == this->device()) return;
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  data_.reset();
  capacity_ = 0;
  data_ = {allocate(rounded, device), Free{device}};
  capacity_ = rounded;
}

Tensor Buffer::tensor(DType dtype, std::initializer_list<int64_t> dims, Device device) {
  Tensor t(nullptr, dtype, dims, device);
  reserve(static_cast<size_t>(t.bytes()) + 1, device);
  t.data = data();
  return t;
}

}  // namespace msa
