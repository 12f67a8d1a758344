// Memory that grows where it lies: addresses are reserved once, memory is put behind them piece by piece.
#pragma once
#include <cstddef>
#include <memory>

#include "core/tensor.h"

namespace msa {

/// Bytes to add to `held` so that there are at least `wanted`: whole granules, and an eighth of what is held at least,
/// as long as that stays within `most`. 0: enough is there.
size_t bytes_to_add(size_t held, size_t wanted, size_t granule, size_t most);

/// On a GPU through CUDA's virtual memory management; on the host through the pages of the system.
class GrowingMemory {
 public:
  /// Never more than `most` bytes.
  GrowingMemory(Device device, size_t most);
  GrowingMemory(GrowingMemory&&) noexcept;
  GrowingMemory& operator=(GrowingMemory&&) noexcept;
  ~GrowingMemory();

  void* data() const;
  size_t capacity() const;
  /// At least `bytes`; what is there stays, at the same address. Throws Error when memory is short.
  void grow(size_t bytes);

  struct Impl;  // growing_memory.cc: the host, growing_memory_cuda.cu: a GPU

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace msa
