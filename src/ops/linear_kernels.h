// The loops behind Linear that are written per instruction set; the best one for the processor is picked at run time.
#pragma once
#include <cstdint>

#include "core/tensor.h"

namespace msa {

/// Columns of a block in the layouts BA16a64b (F32) and BA16a64b2a (BF16) of oneDNN: each block of 64 outputs is
/// contiguous, [in, 64] or [in / 2, 64, 2], `in` padded with zeros to 16 or 32.
inline constexpr int64_t kColumnBlock = 64;

/// Rows that one pass over a weight serves in the kernels for few rows.
inline constexpr int kRowsPerPass = 4;

/// One block of outputs for up to kRowsPerPass rows: sums[r][c] = Σ_k x[r][k] · block[k][c].
struct BlockProduct {
  const void* const* x;  // [rows] pointers to [in] floats or bf16
  const void* block;     // packed as above
  int64_t in;
  float* sums;  // [rows, 64]
  int rows;
};

using BlockProductKernel = void (*)(const BlockProduct&);
/// Null where this processor has no such kernel.
BlockProductKernel block_product_kernel(DType operand);

/// Copies n numbers of type F32 or BF16 into the other (or the same) type.
void convert(const void* from, DType from_type, void* to, DType to_type, int64_t n);

/// Writes (or adds, F32 only) n sums to y of type F32 or BF16.
void store_sums(const float* sums, int64_t n, void* y, DType y_type, bool accumulate);

/// x [n] → out [n] = offset + round(x / scale) with |x / scale| <= 127, as bytes modulo 256. Returns the scale: NaN
/// where x holds an infinity or NaN.
float quantise_to_bytes(const float* x, int64_t n, int32_t offset, uint8_t* out);

/// out[i] = (sums[i] - offsets[i]) · scales[i] · scale.
struct IntegerSums {
  const int32_t* sums;     // [n]
  const int32_t* offsets;  // [n]
  const float* scales;     // [n]
  float scale;
  int64_t n;
};
void scale_integers(const IntegerSums& in, float* out);

}  // namespace msa
