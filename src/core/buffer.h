// Owning, 64-byte aligned host memory.
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
  explicit Buffer(size_t bytes) { reserve(bytes); }

  void* data() const { return data_.get(); }
  size_t capacity() const { return capacity_; }
  /// At least `bytes`; what was inside may be lost. Throws Error when memory is short.
  void reserve(size_t bytes);
  /// Reserves and views the buffer as a dense tensor.
  Tensor tensor(DType dtype, std::initializer_list<int64_t> dims);

 private:
  struct Free {
    void operator()(void* p) const;
  };
  std::unique_ptr<void, Free> data_;
  size_t capacity_ = 0;
};

}  // namespace msa
