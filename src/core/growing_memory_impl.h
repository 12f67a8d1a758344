// One kind of memory behind GrowingMemory.
#pragma once
#include "core/growing_memory.h"

namespace msa {

struct GrowingMemory::Impl {
  virtual ~Impl() = default;
  /// `more` bytes, a multiple of the granule, behind the first `held`.
  virtual void add(size_t more) = 0;

  char* data = nullptr;
  size_t held = 0, most = 0, granule = 1;
};

/// Defined only in builds with CUDA.
std::unique_ptr<GrowingMemory::Impl> reserve_cuda_memory(int index, size_t most);

}  // namespace msa
