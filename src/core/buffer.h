// Owning, 64-byte aligned memory of the host or of a GPU.
#pragma once
#include <cstddef>
#include <initializer_list>
#include <memory>

#include "core/tensor.h"

namespace msa {

/// Uninitialised bytes that grow without keeping their content: for scratch and outputs.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes, Device device = {}) { reserve(bytes, device); }

  void* data() const { return data_.get(); }
  size_t capacity() const { return capacity_; }
  Device device() const { return data_.get_deleter().device; }
  /// At least `bytes` on that device; what was inside may be lost. Throws Error when memory is short.
  void reserve(size_t bytes, Device device = {});
  /// Reserves and views the buffer as a dense tensor.
  Tensor tensor(DType dtype, std::initializer_list<int64_t> dims, Device device = {});

 private:
  struct Free {
    void operator()(void* p) const;
    Device device;
  };
  std::unique_ptr<void, Free> data_;
  size_t capacity_ = 0;
};

}  // namespace msa
