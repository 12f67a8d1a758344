// What the CUDA kernels share: loads and stores of F32 and BF16, sums over a warp or block, dispatch by type.
#pragma once
#include <cuda_bf16.h>

#include <cstdint>

#include "core/cuda_state.h"
#include "core/dtype.h"

namespace msa::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

__device__ inline float load(const float* p) { return *p; }
__device__ inline float load(const __nv_bfloat16* p) { return __bfloat162float(*p); }
__device__ inline void store(float* p, float x) { *p = x; }
__device__ inline void store(__nv_bfloat16* p, float x) { *p = __float2bfloat16_rn(x); }

/// N consecutive elements, moved at once: their address must be a multiple of their size.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
};

template <class T>
__device__ T* row_of(T* base, int64_t row, int64_t row_bytes) {
  return reinterpret_cast<T*>(reinterpret_cast<char*>(base) + row * row_bytes);
}
template <class T>
__device__ const T* row_of(const T* base, int64_t row, int64_t row_bytes) {
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(base) + row * row_bytes);
}

__device__ inline float warp_sum(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

/// Sum over the block, in every thread. `shared` [32]; may be used again after the next __syncthreads().
__device__ inline float block_sum(float x, float* shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = (blockDim.x + kWarp - 1) / kWarp;
  x = warp_sum(x);
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  return warp_sum(lane < warps ? shared[lane] : 0.0f);
}

/// 16 bytes from global to shared memory, in the background.
__device__ inline void copy_to_shared(void* to, const void* from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}
/// The same where `is_there`, else zeros; `from` is an address either way.
__device__ inline void copy_to_shared_or_zero(void* to, const void* from, bool is_there) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(is_there ? 16 : 0)
               : "memory");
}
/// Ends a group of this thread's copies.
__device__ inline void commit_copies_to_shared() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Returns when all of this thread's groups but the last kPending are there.
template <int kPending>
__device__ inline void wait_for_all_copies_but() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
/// Returns when this thread's copies are there.
__device__ inline void wait_for_copies_to_shared() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Kernels that overlap: one launched with launch_overlapping() may begin while the kernel before it in the stream runs.
// Until wait_for_previous_kernel() it may read nothing that the kernels just before it write, and write nothing.
// Hopper and later; elsewhere kernels follow one another.

/// Returns when all kernels before have ended and what they wrote can be read.
__device__ inline void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The next kernel may begin once all blocks have come here.
__device__ inline void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// `bytes` (a multiple of 16) on their way into the L2 cache.
__device__ inline void prefetch_l2(const void* p, unsigned bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
#endif
}

template <class... Parameters, class... Arguments>
void launch_overlapping(const Context& context, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
                        const Arguments&... arguments) {
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = cuda_stream(context);
  config.attrs = &overlap;
  config.numAttrs = context.cuda->overlaps_kernels ? 1 : 0;
  cuda_check(cudaLaunchKernelEx(&config, kernel, arguments...), "launch of a kernel");
}

inline int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }

/// Calls f with a null pointer of the element type: float or __nv_bfloat16.
template <class F>
void with_type(DType type, const F& f) {
  if (type == DType::kF32) return f(static_cast<float*>(nullptr));
  MSA_CHECK(type == DType::kBF16);
  f(static_cast<__nv_bfloat16*>(nullptr));
}

template <class Pointer>
using Element = std::remove_pointer_t<Pointer>;

/// Whether all rows of a tensor begin at a multiple of `bytes`.
inline bool is_aligned(const Tensor& t, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(bytes) == 0 && t.row_bytes % bytes == 0;
}

}  // namespace msa::cuda
