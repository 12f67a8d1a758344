#include "ops/linear.h"

#include <optional>
#include <string>

#include "core/cpu.h"
#include "core/quant.h"
#include "ops/check.h"
#include "ops/cuda_ops.h"
#include "ops/linear_int8.h"
#include "ops/linear_kernels.h"
#include "ops/linear_packed.h"
#include "ops/linear_quantised.h"
#include "ops/upload_weight.h"

namespace msa {
namespace {

void check_weight(const Tensor& weight) {
  const int64_t block = traits(weight.dtype).block_elements;
  if (weight.rank == 2 && weight.rows() > 0 && weight.dim(1) > 0 && weight.dim(1) % block == 0) return;
  throw Error("not a matrix that can be multiplied by: " + weight.describe(), "weight of a linear layer",
              "its rows must hold a positive multiple of " + std::to_string(block) + " elements");
}

bool is_float(DType type) { return type == DType::kF32 || type == DType::kBF16; }

/// Rows of x in `type`, in the scratch buffer where they have to be converted.
Tensor converted(Context& context, const Tensor& x, DType type, Buffer& scratch) {
  if (x.dtype == type) return x;
  const Tensor out = scratch.tensor(type, {x.rows(), x.dim(1)});
  constexpr int64_t kRowsPerPiece = 16;
  context.pool.parallel_for(x.rows(), kRowsPerPiece, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) convert(x.row<void>(t), x.dtype, out.row<void>(t), type, x.dim(1));
  });
  return out;
}

/// `format` bf16 without AVX512: the weights are rounded to bf16, but held and multiplied as float32.
PackedMatrix pack_floats(Context& context, const Tensor& weight, LinearFormat format) {
  const bool bf16_operands = format == LinearFormat::kBF16 && cpu_features().avx512;
  const bool round = format == LinearFormat::kBF16 && !bf16_operands;
  const int64_t in = weight.dim(1);
  const auto source = [&](int64_t begin, int64_t end, void* rows) {
    auto* row = static_cast<float*>(rows);
    for (int64_t r = begin; r < end; ++r, row += in) {
      dequantise_row(weight.dtype, weight.row<void>(r), in, row);
      for (int64_t i = 0; round && i < in; ++i) row[i] = to_float(to_bf16(row[i]));
    }
  };
  return {context, in, weight.dim(0), bf16_operands ? DType::kBF16 : DType::kF32, source};
}

void multiply_floats(Context& context, const PackedMatrix& packed, const Tensor& x, const Tensor& y, bool accumulate) {
  const Tensor operand = converted(context, x, packed.operand(), context.scratch[0]);
  if (y.dtype == DType::kF32 || packed.operand() == DType::kBF16) {
    return packed.multiply(context, operand, y, accumulate);
  }
  const Tensor sums = context.scratch[1].tensor(DType::kF32, {y.rows(), y.dim(1)});
  packed.multiply(context, operand, sums, false);
  for (int64_t t = 0; t < y.rows(); ++t) convert(sums.row<void>(t), DType::kF32, y.row<void>(t), y.dtype, y.dim(1));
}

}  // namespace

struct Linear::Impl {
  Impl(Context& context, const Tensor& weight, const Options& options) : in(weight.dim(1)), out(weight.dim(0)) {
    if (on_cuda(context.device)) {
      const DType type = options.format == LinearFormat::kF32 ? DType::kF32 : DType::kBF16;
      device = upload_weight(context, weight, type, device_memory);
      return;
    }
    if (options.format == LinearFormat::kInt8 && cpu_features().avx512_vnni)
      int8.emplace(context, weight);
    else
      floats.emplace(pack_floats(context, weight, options.format));
    const bool file = options.decode == DecodeFormat::kFile && is_quantised(weight.dtype);
    const bool q8_0 = options.decode == DecodeFormat::kQ8_0;
    if ((file || q8_0) && QuantisedMatrix::fits(weight)) decoding.emplace(context, weight, q8_0);
  }

  int64_t in;
  int64_t out;
  Tensor device;  // F32|BF16 [out, in] on CUDA: then none of the others
  Buffer device_memory;
  std::optional<PackedMatrix> floats;  // one of these two
  std::optional<Int8Matrix> int8;
  std::optional<QuantisedMatrix> decoding;
};

Linear::Linear(Context& context, const Tensor& weight, const Options& options) {
  check_weight(weight);
  impl_ = std::make_shared<const Impl>(context, weight, options);
}

int64_t Linear::in_features() const { return impl_ ? impl_->in : 0; }
int64_t Linear::out_features() const { return impl_ ? impl_->out : 0; }

int64_t Linear::decode_bytes() const {
  if (!impl_) return 0;
  if (!impl_->device.empty()) return impl_->device.bytes();
  if (impl_->decoding) return impl_->decoding->bytes();
  const DType type = impl_->int8 ? DType::kI8 : impl_->floats->operand();
  return impl_->in * impl_->out * traits(type).block_bytes;
}

const Tensor& Linear::device_weight() const {
  MSA_CHECK(impl_ != nullptr && !impl_->device.empty());
  return impl_->device;
}

void Linear::forward(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const {
  MSA_CHECK(impl_ != nullptr && x.rank == 2 && y.rank == 2);
  MSA_CHECK(is_float(x.dtype) && is_float(y.dtype) && (!accumulate || y.dtype == DType::kF32));
  MSA_CHECK(x.dim(1) == impl_->in && y.dim(1) == impl_->out && x.rows() == y.rows());
  if (x.rows() == 0) return;
  if (runs_on_cuda(context, x, y)) {
    if constexpr (kHasCuda) return linear_cuda(context, device_weight(), x, y, accumulate);
  }
  MSA_CHECK(impl_->device.empty());
  if (impl_->decoding && x.rows() <= kDecodeRows) return impl_->decoding->multiply(context, x, y, accumulate);
  if (impl_->int8) return impl_->int8->multiply(context, x, y, accumulate);
  multiply_floats(context, *impl_->floats, x, y, accumulate);
}

LinearFormat default_linear_format() {
  const CpuFeatures& cpu = cpu_features();
  return cpu.avx512_bf16 || cpu.amx_bf16 ? LinearFormat::kBF16 : LinearFormat::kF32;
}

}  // namespace msa
