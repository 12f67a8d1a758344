#include "ops/decode_attention.h"

#include "ops/check.h"
#include "ops/cuda_ops.h"

namespace msa {
namespace {

bool fits(const Tensor& t) {
  return t.dtype == DType::kBF16 && on_cuda(t) && reinterpret_cast<uintptr_t>(t.data) % 16 == 0 &&
         t.row_bytes % 16 == 0;
}

}  // namespace

bool decode_fits(const DecodeInput& in, std::span<const KeyValueSpan> prefix, const DecodeCache& cache) {
  const int64_t d = in.q.dim(2), per_group = in.q.dim(1) / cache.k.dim(1);
  bool all = in.q.rows() == 1 && fits(in.q) && fits(in.k) && fits(in.v) && fits(cache.k) && fits(cache.v);
  for (const KeyValueSpan& span : prefix) all = all && (span.k.rows() == 0 || (fits(span.k) && fits(span.v)));
  return all && d % 8 == 0 && d <= DecodeCache::kMostHeadDim && per_group <= DecodeCache::kMostHeadsPerGroup;
}

void decode_attention(Context& context, const DecodeInput& in, std::span<const KeyValueSpan> prefix,
                      const DecodeCache& cache, const Tensor& out) {
  MSA_CHECK(decode_fits(in, prefix, cache) && same_shape(in.q, out) && out.dtype == DType::kBF16);
  MSA_CHECK(same_shape(in.k, in.v) && in.k.rows() == 1 && in.k.row_elements() == cache.k.row_elements());
  MSA_CHECK(in.how.q_norm.empty() == in.how.k_norm.empty() && in.how.table->head_dim == in.q.dim(2));
  MSA_CHECK(runs_on_cuda(context, in.q, in.k, in.v, in.position, in.how.table->device, out));
  MSA_CHECK(runs_on_cuda(context, cache.k, cache.v, cache.length, cache.counters, cache.partials));
  if constexpr (kHasCuda) decode_attention_cuda(context, in, prefix, cache, out);
}

}  // namespace msa
