// Memory of a GPU, and host memory that it reads by itself.
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>

#include "core/cuda.h"
#include "core/cuda_state.h"
#include "core/error.h"

namespace msa {
namespace {

constexpr size_t kGranularity = size_t{4} << 10;
constexpr size_t kLargestKept = size_t{1} << 30;

std::string mebibytes(size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

cudaError_t allocate_on_device(void** memory, size_t bytes) { return cudaMalloc(memory, bytes); }
cudaError_t allocate_pinned(void** memory, size_t bytes) { return cudaHostAlloc(memory, bytes, cudaHostAllocPortable); }
cudaError_t release_on_device(void* memory) { return cudaFree(memory); }

/// Blocks of one kind that were released, for whoever asks next: the driver takes longer than a kernel to give memory,
/// and to take it back waits for the whole device.
class BlockCache {
 public:
  using Allocate = cudaError_t (*)(void** memory, size_t bytes);
  using Release = cudaError_t (*)(void* memory);
  BlockCache(Allocate allocate, Release release, const char* what)
      : allocate_(allocate), release_(release), what_(what) {}

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
    cudaError_t status = allocate_(&memory, bytes);
    if (status == cudaErrorMemoryAllocation && !free_.empty()) {
      static_cast<void>(cudaGetLastError());
      forget_free();
      status = allocate_(&memory, bytes);
    }
    if (status == cudaErrorMemoryAllocation) throw_out_of_memory(index, bytes, what_);
    cuda_check(status, what_);
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

  void give_back() {
    const std::lock_guard lock(mutex_);
    forget_free();
  }

  size_t free_bytes() {
    const std::lock_guard lock(mutex_);
    size_t bytes = 0;
    for (const auto& [size, block] : free_) bytes += size;
    return bytes;
  }

  [[noreturn]] static void throw_out_of_memory(int index, size_t bytes, const char* what) {
    static_cast<void>(cudaGetLastError());
    size_t free = 0, total = 0;
    cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    throw Error("out of " + std::string(what) + ": " + mebibytes(bytes) + " asked for; of the GPU's memory " +
                    mebibytes(free) + " of " + mebibytes(total) + " are free",
                "GPU " + std::to_string(index), "use a smaller batch, or end other programs on this machine");
  }

 private:
  void forget(void* memory) {
    release_(memory);
    sizes_.erase(memory);
  }

  void forget_free() {
    for (const auto& [size, block] : free_) forget(block);  // waits for the device
    free_.clear();
    settled_ = true;
  }

  Allocate allocate_;
  Release release_;
  const char* what_;
  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;  // of all blocks, given out or free
  std::multimap<size_t, void*> free_;
  bool settled_ = true;  // nothing that the device may still work on is free
};

/// What lies on one GPU, and what it reads of the host.
struct Caches {
  BlockCache device{allocate_on_device, release_on_device, "device memory"};
  BlockCache pinned{allocate_pinned, cudaFreeHost, "page-locked host memory"};
};

/// Never destroyed: buffers of static storage are released after everything else.
Caches& caches_of(int index) {
  static std::mutex mutex;
  static auto* const caches = new std::map<int, Caches>;
  const std::lock_guard lock(mutex);
  return (*caches)[index];
}

}  // namespace

void* cuda_allocate(int index, size_t bytes) { return caches_of(use_device(index)).device.allocate(index, bytes); }
void cuda_release(int index, void* memory) { caches_of(index).device.release(memory); }
void cuda_give_back(int index) { caches_of(use_device(index)).device.give_back(); }
void cuda_out_of_memory(int index, size_t bytes) { BlockCache::throw_out_of_memory(index, bytes, "device memory"); }

CudaBytes cuda_bytes(int index) {
  BlockCache& cache = caches_of(use_device(index)).device;
  size_t free = 0, total = 0;
  cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return {free + cache.free_bytes(), total};
}

void* cuda_allocate_pinned(int index, size_t bytes) {
  return caches_of(use_device(index)).pinned.allocate(index, bytes);
}
void cuda_release_pinned(int index, void* memory) { caches_of(index).pinned.release(memory); }

}  // namespace msa
