// What a CUDA context holds, for .cu files.
#pragma once
#include <cuda_runtime.h>

#include "core/context.h"
#include "core/cublaslt.h"
#include "core/cuda.h"
#include "core/cudnn.h"

namespace msa {

struct CudaState {
  explicit CudaState(int index);
  ~CudaState();
  CudaState(const CudaState&) = delete;
  CudaState& operator=(const CudaState&) = delete;

  int index = 0;
  int processors = 0;             // streaming multiprocessors
  bool overlaps_kernels = false;  // a kernel may begin while the one before ends (Hopper and later)
  cudaStream_t stream = nullptr;
  cudaStream_t copies = nullptr;  // to the host, beside the work of `stream`
  CublasLt blas;

  /// Opened with the first call; null where our own kernels serve.
  Cudnn* cudnn();

 private:
  std::unique_ptr<Cudnn> cudnn_;
  bool has_looked_for_cudnn_ = false;
};

/// Makes the GPU the thread's current one. Throws Error where there is none.
int use_device(int index);

/// Throws Error with CUDA's own description; `what`: the call or kernel.
void cuda_check(cudaError_t status, const char* what);

/// The stream of the context's device, which becomes the thread's current one.
cudaStream_t cuda_stream(const Context& context);

/// To follow every kernel launch.
inline void check_launch(const char* kernel) { cuda_check(cudaGetLastError(), kernel); }

}  // namespace msa
