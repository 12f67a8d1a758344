// A weight in oneDNN's packed layout, multiplied with any number of rows.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// A weight [out, in] for operands F32, BF16 or I8. oneDNN computes with one thread per call; the rows and columns of a
/// product are divided among the workers here.
class PackedMatrix {
 public:
  /// Writes rows [begin, end) of the weight, dense [end - begin, in]: int8 for operand I8, else float. Called by
  /// several threads at once, for disjoint ranges that cover [0, out).
  using RowSource = std::function<void(int64_t begin, int64_t end, void* rows)>;
  /// Takes a finished tile, dense [n, m] I32 for operand I8, else F32: its first element is that of `row` and `column`.
  /// Called by several threads at once.
  using TileSink = std::function<void(const Tensor& tile, int64_t row, int64_t column)>;

  PackedMatrix(Context& context, int64_t in, int64_t out, DType operand, const RowSource& source);
  ~PackedMatrix();
  PackedMatrix(PackedMatrix&&) noexcept;

  int64_t in() const;
  int64_t out() const;
  DType operand() const;

  /// x [T, in] of type operand(), F32 or BF16 → y [T, out] F32, or BF16 where operand() is BF16; rows may be strided.
  /// `accumulate` adds to y (F32). The result for up to 8 rows does not depend on the number of threads.
  void multiply(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const;
  /// The same for any operand, tile by tile. With operand I8, x holds unsigned bytes.
  void multiply_tiles(Context& context, const Tensor& x, const TileSink& sink) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msa
