// Memory of a GPU, and host memory that it reads by itself.
#include <map>
#include <mutex>
#include <unordered_map>

#include "core/cuda.h"
#include "core/cuda_state.h"
#include "core/error.h"

namespace msa {
namespace {

constexpr size_t kGranularity = size_t{4} << 10;
constexpr size_t kLargestKept = size_t{1} << 30;

std::string mebibytes(size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

/// Blocks that were released, for whoever asks next: cudaMalloc and cudaFree take longer than a kernel, and cudaFree
/// waits for the whole device. One a GPU.
class BlockCache {
 public:
  void* allocate(int index, size_t asked) {
    const size_t bytes = (asked + kGranularity - 1) / kGranularity * kGranularity;
    const std::lock_guard lock(mutex_);
    const auto found = free_.lower_bound(bytes);
    if (found != free_.end() && found->first <= bytes + bytes / 4) {
      if (!settled_) cuda_check(cudaDeviceSynchronize(), "waiting for memory that was released");
      settled_ = true;
      void* const memory = found->second;
      free_.erase(found);
      return memory;
    }
    void* memory = nullptr;
    cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation && !free_.empty()) {
      static_cast<void>(cudaGetLastError());
      for (const auto& [size, block] : free_) forget(block);  // waits for the device
      free_.clear();
      status = cudaMalloc(&memory, bytes);
    }
    if (status == cudaErrorMemoryAllocation) throw_out_of_memory(index, bytes);
    cuda_check(status, "cudaMalloc");
    sizes_.emplace(memory, bytes);
    return memory;
  }

  /// A block of this GPU.
  void release(void* memory) {
    const std::lock_guard lock(mutex_);
    const auto found = sizes_.find(memory);
    MSA_CHECK(found != sizes_.end());
    if (found->second > kLargestKept) {
      forget(memory);
    } else {
      free_.emplace(found->second, memory);
      settled_ = false;
    }
  }

 private:
  void forget(void* memory) {
    cudaFree(memory);
    sizes_.erase(memory);
  }

  [[noreturn]] static void throw_out_of_memory(int index, size_t bytes) {
    static_cast<void>(cudaGetLastError());
    size_t free = 0, total = 0;
    cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    throw Error(
        "out of memory: " + mebibytes(bytes) + " asked for, " + mebibytes(free) + " of " + mebibytes(total) + " free",
        "GPU " + std::to_string(index), "use a smaller batch, or end other programs on this GPU");
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;  // of all blocks, given out or free
  std::multimap<size_t, void*> free_;
  bool settled_ = true;  // nothing that the device may still work on is free
};

/// Never destroyed: buffers of static storage are released after everything else.
BlockCache& cache_of(int index) {
  static std::mutex mutex;
  static auto* const caches = new std::map<int, BlockCache>;
  const std::lock_guard lock(mutex);
  return (*caches)[index];
}

}  // namespace

void* cuda_allocate(int index, size_t bytes) {
  use_device(index);
  return cache_of(index).allocate(index, bytes);
}

void cuda_release(int index, void* memory) { cache_of(index).release(memory); }

void* cuda_allocate_pinned(size_t bytes) {
  void* memory = nullptr;
  cuda_check(cudaHostAlloc(&memory, bytes, cudaHostAllocPortable), "cudaHostAlloc");
  return memory;
}

void cuda_release_pinned(void* memory) { cudaFreeHost(memory); }

}  // namespace msa
