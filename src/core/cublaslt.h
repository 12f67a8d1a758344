// cuBLASLt, opened when the first CUDA context is made: the program runs where the library is not installed.
#pragma once
#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <tuple>

#include "core/dtype.h"

namespace msa {

/// y [rows, out] = x [rows, in] · weightᵀ [in, out], all row-major; with `accumulate` added to y.
struct Product {
  int64_t rows = 0, in = 0, out = 0;
  DType operand = DType::kBF16;  // of x and weight: F32 (float32 products, no TF32) or BF16
  DType result = DType::kBF16;   // of y: F32, or BF16 where the operand is
  bool accumulate = false;
  int64_t x_stride = 0, y_stride = 0;  // elements between rows
  const void* x = nullptr;
  const void* weight = nullptr;  // dense
  void* y = nullptr;
};

/// One handle with its workspace. Not for two threads at once.
class CublasLt {
 public:
  /// Throws Error where the library is missing. `device` is the current one.
  CublasLt();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  void multiply(const Product& product, cudaStream_t stream);

 private:
  struct Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
  };
  // rows, in, out, operand, result, accumulate, strides, alignments of x, weight, y
  using Key = std::tuple<int64_t, int64_t, int64_t, DType, DType, bool, int64_t, int64_t, uint32_t, uint32_t, uint32_t>;

  Plan make_plan(const Product& product, const Key& key);
  void choose_algorithm(Plan& plan, const Product& product, const Key& key);
  void destroy(Plan& plan);

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, Plan> plans_;
};

}  // namespace msa
