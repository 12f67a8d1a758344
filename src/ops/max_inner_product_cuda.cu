#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"

namespace msa {
namespace {

using namespace cuda;

constexpr int kThreads = 256;

/// One warp a key: queries [M, n], keys [N, n], out [N].
template <class Key>
__global__ void max_inner_product_kernel(const float* queries, int64_t query_row_bytes, int64_t m, const Key* keys,
                                         int64_t key_row_bytes, int64_t n_keys, int n, float* out) {
  const int64_t j = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (j >= n_keys) return;
  const Key* key = row_of(keys, j, key_row_bytes);
  float best = -INFINITY;
  for (int64_t r = 0; r < m; ++r) {
    const float* query = row_of(queries, r, query_row_bytes);
    float sum = 0;
    for (int i = lane; i < n; i += kWarp) sum += query[i] * load(key + i);
    best = fmaxf(best, warp_sum(sum));  // a NaN never wins
  }
  if (lane == 0) out[j] = best;
}

}  // namespace

void max_inner_product_cuda(Context& context, const Tensor& queries, const Tensor& keys, const Tensor& out) {
  if (keys.rows() == 0) return;
  with_type(keys.dtype, [&](auto* type) {
    using Key = Element<decltype(type)>;
    const auto blocks = static_cast<unsigned>(ceil_div(keys.rows(), kThreads / kWarp));
    max_inner_product_kernel<<<blocks, kThreads, 0, cuda_stream(context)>>>(
        queries.as<float>(), queries.row_bytes, queries.rows(), keys.as<Key>(), keys.row_bytes, keys.rows(),
        static_cast<int>(keys.dim(1)), out.as<float>());
  });
  check_launch("max_inner_product");
}

}  // namespace msa
