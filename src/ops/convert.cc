#include "ops/convert.h"

#include <cstring>

#include "core/quant.h"
#include "ops/check.h"
#include "ops/cuda_ops.h"

namespace msa {

void convert(Context& context, const Tensor& from, const Tensor& to) {
  MSA_CHECK(is_f32_or_bf16(from) && is_f32_or_bf16(to) && same_shape(from, to));
  if (runs_on_cuda(context, from, to)) {
    if constexpr (kHasCuda) return convert_cuda(context, from, to);
  }
  const int64_t n = from.row_elements();
  context.pool.parallel_for(from.rows(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      if (from.dtype == DType::kF32)
        quantise_row(to.dtype, from.row<float>(t), n, to.row<void>(t));
      else if (to.dtype == DType::kF32)
        dequantise_row(from.dtype, from.row<void>(t), n, to.row<float>(t));
      else
        std::memcpy(to.row<void>(t), from.row<void>(t), static_cast<size_t>(from.dense_row_bytes()));
    }
  });
}

}  // namespace msa
