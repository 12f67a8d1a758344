// A weight in oneDNN's packed layout, multiplied with any number of rows.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// Weights [out, in] as F32 or BF16. oneDNN computes with one thread per call; the rows and columns of a product are
/// divided among the workers here.
class PackedMatrix {
 public:
  /// `weight` [out, in] of any type. `bf16` asks for bf16 operands; without AVX512 the weights are rounded to bf16 but
  /// held and multiplied as float32.
  PackedMatrix(Context& context, const Tensor& weight, bool bf16);
  ~PackedMatrix();
  PackedMatrix(PackedMatrix&&) noexcept;

  /// The type that x must have.
  DType operand() const;
  /// x [T, in] of type operand() → y [T, out] F32, or BF16 where operand() is BF16; rows may be strided. `accumulate`
  /// adds to y (F32).
  void multiply(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msa
