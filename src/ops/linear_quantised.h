// A weight of 4 or 8 bits for decoding: few rows of x, every byte of the weight read once.
#pragma once
#include <cstdint>

#include "core/buffer.h"
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// Rows of a quantised weight repacked in panels of 16 outputs, so that one vector register serves 16 outputs and no
/// sum runs across lanes. As large as the GGUF blocks it comes from, whose memory is not needed afterwards:
///   nibbles (20 bytes per 32 weights): Q4_1 unchanged; Q4_0, its offset as a minimum; Q4_K, its scales as halves
///   bytes   (34 bytes per 32 weights): Q8_0 and Q5_0 unchanged; Q6_K and plain types quantised to Q8_0
/// Activations are quantised to 8 bits per 32, as in ggml.
class QuantisedMatrix {
 public:
  /// Whether `weight` [out, in] can be held: whole blocks of 32.
  static bool fits(const Tensor& weight) { return weight.dim(1) % 32 == 0; }

  /// `weight` [out, in] of any type; with `as_q8_0` it is held as bytes whatever its type.
  QuantisedMatrix(Context& context, const Tensor& weight, bool as_q8_0);

  /// x [T, in] F32|BF16 → y [T, out] F32|BF16; rows may be strided. `accumulate` adds to y (F32). The result of a row
  /// depends neither on the other rows nor on the number of threads.
  void multiply(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const;

  int64_t bytes() const { return panels() * panel_bytes_; }

 private:
  int64_t panels() const;
  void pack_panel(const Tensor& weight, int64_t panel) const;

  int64_t in_ = 0;
  int64_t out_ = 0;
  bool nibbles_ = false;
  int64_t panel_bytes_ = 0;
  Buffer packed_;
};

}  // namespace msa
