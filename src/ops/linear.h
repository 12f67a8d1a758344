// y = x Wᵀ, the matrix product behind every projection.
#pragma once
#include <memory>

#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// How a weight is held and multiplied.
enum class LinearFormat {
  kF32,   // float32 throughout: the reference precision
  kBF16,  // bf16 operands, float32 accumulation (AVX512-BF16 or AMX; slow with AVX512 alone; without it the weights are
          // rounded to bf16 and multiplied as kF32)
  kInt8,  // int8 weights, one scale per output row; activations quantised per row (AVX512-VNNI; elsewhere as kF32,
          // on CUDA as kBF16)
};

/// How a weight is held for products with very few rows (decoding), where reading it is the cost. A weight for which
/// the choice means nothing (kFile and a plain type; rows that are no multiple of 32) is held as kSame.
enum class DecodeFormat {
  kSame,  // as LinearFormat
  kQ8_0,  // GGUF Q8_0 blocks, activations quantised to int8 per block
  kFile,  // the bits of the given quantised weight, repacked so that 16 outputs share a vector (linear_quantised.h);
          // Q6_K becomes Q8_0. The weight's own memory is not read afterwards.
};        // on CUDA always as kSame

/// A weight [out, in] made ready once (packed for the product at hand), then shared read-only by any number of
/// contexts.
class Linear {
 public:
  struct Options {
    LinearFormat format = LinearFormat::kF32;
    DecodeFormat decode = DecodeFormat::kSame;
  };

  /// Products with at most this many rows use the decode format.
  static constexpr int64_t kDecodeRows = 8;

  Linear() = default;
  /// `weight` [out, in] of any type, quantised ones included, in host memory or on the context's device; its memory is
  /// not needed afterwards. The Linear then works on contexts of this device.
  /// Throws Error where it is not a matrix.
  Linear(Context& context, const Tensor& weight, const Options& options);

  int64_t in_features() const;
  int64_t out_features() const;
  bool empty() const { return impl_ == nullptr; }
  /// Bytes of the weight that a product with one row reads.
  int64_t decode_bytes() const;
  /// The weight itself on CUDA: F32 or BF16 [out, in], dense.
  const Tensor& device_weight() const;

  /// x [T, in] F32 or BF16 (rows may be strided) → y [T, out] F32 or BF16 (rows may be strided).
  /// `accumulate` adds to y (F32 only): the residual connection. x and y must not overlap. The result for up to
  /// kDecodeRows rows does not depend on the number of threads.
  void forward(Context& context, const Tensor& x, const Tensor& y, bool accumulate = false) const;

  struct Impl;

 private:
  std::shared_ptr<const Impl> impl_;
};

/// The fastest format of this processor that keeps the model's quality: kBF16 where AVX512-BF16 or AMX is there, else
/// kF32.
LinearFormat default_linear_format();

/// Dequantises rows [begin, end) of `weight` [out, in] of any type into `out` F32 [end - begin, in].
void dequantise_rows(Context& context, const Tensor& weight, int64_t begin, int64_t end, const Tensor& out);

}  // namespace msa
