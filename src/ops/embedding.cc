#include "ops/embedding.h"

#include "core/quant.h"

namespace msa {

void embedding(Context& context, const Tensor& table, std::span<const int32_t> ids, const Tensor& out) {
  const int64_t vocab = table.rows();
  const int64_t hidden = table.row_elements();
  MSA_CHECK(table.rank == 2 && out.rank == 2 && out.dtype == DType::kF32);
  MSA_CHECK(out.rows() == static_cast<int64_t>(ids.size()) && out.dim(1) == hidden);
  MSA_CHECK(hidden % traits(table.dtype).block_elements == 0);
  for (const int32_t id : ids) MSA_CHECK(id >= 0 && id < vocab);
  constexpr int64_t kRowsPerPiece = 16;  // a row costs about as much as a tenth of waking a worker
  context.pool.parallel_for(out.rows(), kRowsPerPiece, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      dequantise_row(table.dtype, table.row<void>(ids[static_cast<size_t>(t)]), hidden, out.row<float>(t));
    }
  });
}

}  // namespace msa
