#include "ops/upload_weight.h"

#include <algorithm>
#include <vector>

#include "core/copy.h"
#include "core/quant.h"
#include "ops/check.h"
#include "ops/cuda_ops.h"

namespace msa {
namespace {

constexpr int64_t kPieceBytes = 64 << 20;  // of host memory under way

void decode_and_copy(Context& context, const Tensor& weight, const Tensor& to) {
  const int64_t n = weight.row_elements();
  const int64_t step = std::max<int64_t>(1, kPieceBytes / to.dense_row_bytes());
  Buffer piece;
  for (int64_t begin = 0; begin < weight.rows(); begin += step) {
    const int64_t end = std::min(weight.rows(), begin + step);
    const Tensor rows = piece.tensor(to.dtype, {end - begin, n});
    context.pool.parallel_for(end - begin, 16, [&](int64_t first, int64_t last, int) {
      std::vector<float> row(static_cast<size_t>(n));
      for (int64_t r = first; r < last; ++r) {
        dequantise_row(weight.dtype, weight.row<void>(begin + r), n, row.data());
        quantise_row(to.dtype, row.data(), n, rows.row<void>(r));
      }
    });
    copy(context, rows, to.slice_rows(begin, end));
    synchronize(context);  // before the piece is written again
  }
}

}  // namespace

Tensor upload_weight(Context& context, const Tensor& weight, DType type, Buffer& memory) {
  MSA_CHECK(on_cuda(context.device) && (type == DType::kF32 || type == DType::kBF16));
  const Tensor to = memory.tensor(type, {weight.rows(), weight.row_elements()}, context.device);
  if (weight.dtype == type) {
    copy(context, weight, to);
  } else if (on_cuda(weight)) {
    MSA_CHECK(is_f32_or_bf16(weight));
    if constexpr (kHasCuda) convert_cuda(context, weight, to);
  } else {
    decode_and_copy(context, weight, to);
  }
  return to;
}

}  // namespace msa
