#include "ops/embedding.h"

#include <algorithm>
#include <cstring>

#include "core/quant.h"
#include "ops/check.h"
#include "ops/cuda_ops.h"

namespace msa {
namespace {

bool all_below(const Indices& indices, int64_t end) {
  return std::all_of(indices.host.begin(), indices.host.end(), [&](int32_t i) { return i >= 0 && i < end; });
}

}  // namespace

void embedding(Context& context, const Tensor& table, const Indices& ids, const Tensor& out) {
  const int64_t vocab = table.rows();
  const int64_t hidden = table.row_elements();
  MSA_CHECK(table.rank == 2 && out.rank == 2 && out.dtype == DType::kF32);
  MSA_CHECK(out.rows() == ids.size() && out.dim(1) == hidden);
  MSA_CHECK(hidden % traits(table.dtype).block_elements == 0);
  MSA_CHECK(all_below(ids, vocab));
  if (runs_on_cuda(context, table, out)) {
    if constexpr (kHasCuda) return embedding_cuda(context, table, ids.on(context), out);
  }
  constexpr int64_t kRowsPerPiece = 16;  // a row costs about as much as a tenth of waking a worker
  context.pool.parallel_for(out.rows(), kRowsPerPiece, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      dequantise_row(table.dtype, table.row<void>(ids.host[static_cast<size_t>(t)]), hidden, out.row<float>(t));
    }
  });
}

void gather_rows(Context& context, const Tensor& x, const Indices& rows, const Tensor& out) {
  MSA_CHECK(x.rank == 2 && out.rank == 2 && is_f32_or_bf16(x) && out.dtype == x.dtype && out.dim(1) == x.dim(1));
  MSA_CHECK(out.rows() == rows.size() && all_below(rows, x.rows()));
  if (runs_on_cuda(context, x, out)) {
    if constexpr (kHasCuda) return gather_rows_cuda(context, x, rows.on(context), out);
  }
  for (int64_t i = 0; i < out.rows(); ++i) {
    std::memcpy(out.row<char>(i), x.row<char>(rows.host[static_cast<size_t>(i)]),
                static_cast<size_t>(x.dense_row_bytes()));
  }
}

}  // namespace msa
