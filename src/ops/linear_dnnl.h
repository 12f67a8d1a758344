// What Linear needs of oneDNN: layouts, cached primitives, one thread per call.
#pragma once
#include <omp.h>

#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>

#include "core/tensor.h"

namespace msa {

/// oneDNN sizes its work for OpenMP's threads; the cores belong to the pool, so every call is made under this guard.
class SingleThreaded {
 public:
  SingleThreaded() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleThreaded() { omp_set_num_threads(before_); }
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  int before_;
};

/// What distinguishes two primitives; all layers of a model share those of equal shape. x and y are dense: with strided
/// rows oneDNN 2.6 falls back to its scalar reference, a thousand times slower.
struct ProductShape {
  int64_t rows, in, out;
  DType operand, result;  // F32 → F32; BF16 → F32, BF16; I8 (x unsigned, weights signed) → I32
  bool accumulate;
  bool column_blocks;  // the weight lies in column_block_layout
  auto operator<=>(const ProductShape&) const = default;
};

/// The layout of linear_kernels.h: ranges of whole column blocks can be cut out of it.
dnnl::memory::desc column_block_layout(int64_t in, int64_t out, DType operand);
/// The layout that oneDNN likes best for products of this shape.
dnnl::memory::desc preferred_layout(const ProductShape& shape);

/// x [rows, in] times the packed weight at `packed` → y [rows, out]; all dense.
void run_product(const ProductShape& shape, const void* x, const dnnl::memory::desc& layout, const void* packed,
                 void* y);
/// rows [n, in] of the weight, float or (operand I8) int8 → `packed` in `layout`, whose columns they are.
void pack_rows(const void* rows, int64_t n, int64_t in, const dnnl::memory::desc& layout, void* packed);

}  // namespace msa
