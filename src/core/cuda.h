// CUDA as the files without CUDA headers see it. Defined only in builds with CUDA: call behind `if constexpr
// (kHasCuda)`.
#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "core/tensor.h"

namespace msa {

/// Stream, cuBLASLt handle and workspace of one context: core/cuda_state.h.
struct CudaState;

/// Throws Error where there is no such GPU, no driver, or no cuBLASLt.
std::shared_ptr<CudaState> open_cuda(int index);
std::string cuda_name(int index);
int cuda_count();  // GPUs, at least 1: what is missing shows when one is opened

/// Device memory; throws Error with what was asked for and what is free.
void* cuda_allocate(int index, size_t bytes);
/// Work that uses the memory may still be under way: it is kept, and given out again once the device is done with it.
void cuda_release(int index, void* memory);
/// Hands the driver all memory that is kept.
void cuda_give_back(int index);
/// Throws the Error of a request for `bytes` that could not be met.
[[noreturn]] void cuda_out_of_memory(int index, size_t bytes);
struct CudaBytes {
  size_t free;  // what is kept counted in
  size_t total;
};
CudaBytes cuda_bytes(int index);

/// The same of the host, for copies while the host goes on.
void* cuda_allocate_pinned(int index, size_t bytes);
void cuda_release_pinned(int index, void* memory);

/// from and to: same type, same number of elements a row and rows, at least one of them on this device; rows may be
/// strided. Ordered with the context's ops; to the host it returns when the bytes are there.
void cuda_copy(CudaState& state, const Tensor& from, const Tensor& to);
void cuda_synchronize(CudaState& state);
/// The cudaStream_t that the context's ops run on; its GPU becomes the thread's current one.
void* cuda_stream_handle(CudaState& state);

/// A moment in the context's work.
struct CudaMark;
std::shared_ptr<CudaMark> cuda_mark(CudaState& state);
/// Until all work before the mark has run.
void cuda_wait(const CudaMark& mark);
/// To host memory, waiting for what was launched before the mark and for nothing later. Returns when the bytes are
/// there.
void cuda_copy_after(CudaState& state, const CudaMark& mark, const Tensor& from, const Tensor& to);

/// Everything that `work` launches on the context's stream, captured instead of run. It must not allocate or wait.
struct CudaGraph;
std::shared_ptr<CudaGraph> cuda_capture(CudaState& state, const std::function<void()>& work);
void cuda_launch(CudaState& state, const CudaGraph& graph);

}  // namespace msa
