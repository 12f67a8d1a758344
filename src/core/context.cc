#include "core/context.h"

#include "core/cuda.h"

namespace msa {

Context::Context(int threads, Device where) : pool(threads), device(where) {
  if (!on_cuda(where)) return;
  if constexpr (kHasCuda) {
    cuda = open_cuda(where.index);
  } else {
    throw Error("this build holds no CUDA code", "--device cuda",
                "build where nvcc of a CUDA toolkit is found, or use --device cpu");
  }
}

}  // namespace msa
