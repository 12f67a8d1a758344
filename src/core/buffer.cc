#include "core/buffer.h"

#include <cstdlib>
#include <string>

namespace msa {
namespace {
constexpr size_t kAlignment = 64;
}

void Buffer::Free::operator()(void* p) const { std::free(p); }

void Buffer::reserve(size_t bytes) {
  if (bytes <= capacity_) return;
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  data_.reset();
  capacity_ = 0;
  void* p = std::aligned_alloc(kAlignment, rounded);
  if (p == nullptr) {
    throw Error("out of memory: " + std::to_string(rounded >> 20) + " MiB could not be allocated", "host memory",
                "use a smaller batch or a machine with more memory");
  }
  data_.reset(p);
  capacity_ = rounded;
}

Tensor Buffer::tensor(DType dtype, std::initializer_list<int64_t> dims) {
  Tensor t(nullptr, dtype, dims);
  reserve(static_cast<size_t>(t.bytes()) + 1);
  t.data = data();
  return t;
}

}  // namespace msa
