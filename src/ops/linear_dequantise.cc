#include "core/quant.h"
#include "ops/linear.h"

namespace msa {

void dequantise_rows(Context& context, const Tensor& weight, int64_t begin, int64_t end, const Tensor& out) {
  const int64_t in = weight.row_elements();
  MSA_CHECK(weight.rank == 2 && out.rank == 2 && out.dtype == DType::kF32);
  MSA_CHECK(0 <= begin && begin <= end && end <= weight.rows());
  MSA_CHECK(out.rows() == end - begin && out.dim(1) == in);
  MSA_CHECK(in % traits(weight.dtype).block_elements == 0);
  constexpr int64_t kRowsPerPiece = 16;
  context.pool.parallel_for(end - begin, kRowsPerPiece, [&](int64_t first, int64_t last, int) {
    for (int64_t r = first; r < last; ++r) {
      dequantise_row(weight.dtype, weight.row<void>(begin + r), in, out.row<float>(r));
    }
  });
}

}  // namespace msa
