// Rows moved as they are: embedding, gather, conversion.
#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256;

/// to[t] = from[rows[t]], or from[t] where `rows` is null. from [*, n], rows [T], to [T, n]; one block a row.
template <class From, class To>
__global__ void rows_kernel(const From* from, int64_t from_row_bytes, const int32_t* rows, To* to, int64_t to_row_bytes,
                            int64_t n) {
  const From* source =
      row_of(from, rows == nullptr ? static_cast<int64_t>(blockIdx.x) : rows[blockIdx.x], from_row_bytes);
  To* target = row_of(to, blockIdx.x, to_row_bytes);
  for (int64_t i = threadIdx.x; i < n; i += kThreads) store(target + i, load(source + i));
}

void move_rows(Context& context, const Tensor& from, const int32_t* rows, const Tensor& to) {
  if (to.elements() == 0) return;
  with_type(from.dtype, [&](auto* source) {
    with_type(to.dtype, [&](auto* target) {
      using From = Element<decltype(source)>;
      using To = Element<decltype(target)>;
      rows_kernel<<<static_cast<unsigned>(to.rows()), kThreads, 0, cuda_stream(context)>>>(
          from.as<From>(), from.row_bytes, rows, to.as<To>(), to.row_bytes, to.row_elements());
    });
  });
  check_launch("rows");
}

}  // namespace

void embedding_cuda(Context& context, const Tensor& table, const Tensor& ids, const Tensor& out) {
  move_rows(context, table, ids.as<int32_t>(), out);
}

void gather_rows_cuda(Context& context, const Tensor& x, const Tensor& rows, const Tensor& out) {
  move_rows(context, x, rows.as<int32_t>(), out);
}

void convert_cuda(Context& context, const Tensor& from, const Tensor& to) { move_rows(context, from, nullptr, to); }

}  // namespace msa
