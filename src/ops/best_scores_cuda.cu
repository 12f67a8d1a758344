#include "ops/cuda_ops.h"
#include "ops/kernels.cuh"
#include "ops/routing_select.cuh"

namespace msa {
namespace {

constexpr int kThreads = 256;

/// scores [layers, n], rows `stride` elements apart → orders [n] of the means.
__global__ void mean_orders_kernel(const float* scores, int layers, int64_t stride, int n, uint32_t* orders) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i >= n) return;
  float sum = 0;
  for (int layer = 0; layer < layers; ++layer) sum += scores[layer * stride + i];
  orders[i] = score_order(sum / static_cast<float>(layers));
}

}  // namespace

Tensor best_mean_scores_cuda(Context& context, const Tensor& scores, int k, Buffer& memory) {
  static_assert(kMostBestScores == kMaxRoutingTopK);
  const auto n = static_cast<int>(scores.dim(1));
  const cudaStream_t stream = cuda_stream(context);
  const Tensor orders = context.scratch[0].tensor(DType::kI32, {n}, context.device);
  const Tensor best = context.scratch[1].tensor(DType::kI64, {kSelectBlocks, kMaxRoutingTopK}, context.device);
  const Tensor found =
      memory.tensor(DType::kI8, {2, int64_t{sizeof(RoutingSelection)}}, context.device);  // and the ticket
  mean_orders_kernel<<<static_cast<unsigned>(cuda::ceil_div(n, kThreads)), kThreads, 0, stream>>>(
      scores.as<float>(), static_cast<int>(scores.rows()), scores.row_bytes / int64_t{sizeof(float)}, n,
      orders.as<uint32_t>());
  check_launch("mean_orders");
  SelectParams p;
  p.document_orders = orders.as<uint32_t>();
  p.n_documents = n;
  p.k = k;
  p.block_best = best.as<uint64_t>();
  p.selection = found.as<RoutingSelection>();
  p.ticket = found.row<uint32_t>(1);
  cuda_check(cudaMemsetAsync(p.ticket, 0, sizeof(*p.ticket), stream), "cudaMemsetAsync");
  select_best(p, stream);
  return found.slice_rows(0, 1);
}

}  // namespace msa
