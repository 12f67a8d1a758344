// Host memory for copies to a GPU that the host does not wait for.
#pragma once
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// Grows without keeping its content, as Buffer; page-locked where the context's device is a GPU.
class Staging {
 public:
  Staging() = default;
  Staging(Staging&& other) noexcept { *this = std::move(other); }
  Staging& operator=(Staging&& other) noexcept;
  ~Staging();

  /// A dense tensor in host memory. What was copied from it before must have arrived.
  Tensor tensor(const Context& context, DType dtype, std::initializer_list<int64_t> dims);

 private:
  Buffer plain_;
  void* pinned_ = nullptr;
  size_t capacity_ = 0;  // of pinned_
  int index_ = 0;        // the GPU it is for
};

}  // namespace msa
