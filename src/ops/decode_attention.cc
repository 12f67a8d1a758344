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

bool decode_fits(const Tensor& q, std::span<const KeyValueSpan> prefix, const DecodeCache& cache) {
  const int64_t d = q.dim(2), per_group = q.dim(1) / cache.k.dim(1);
  bool all = q.rows() == 1 && fits(q) && fits(cache.k) && fits(cache.v) && d % 8 == 0;
  for (const KeyValueSpan& span : prefix) all = all && (span.k.rows() == 0 || (fits(span.k) && fits(span.v)));
  return all && d <= DecodeCache::kMostHeadDim && per_group <= DecodeCache::kMostHeadsPerGroup;
}

void append_decoded(Context& context, const Tensor& k, const Tensor& v, const DecodeCache& cache) {
  MSA_CHECK(k.rows() == 1 && v.rows() == 1 && k.row_elements() == cache.k.row_elements());
  MSA_CHECK(k.dtype == DType::kBF16 && v.dtype == DType::kBF16 && same_shape(k, v));
  MSA_CHECK(runs_on_cuda(context, k, v, cache.k, cache.v, cache.length));
  if constexpr (kHasCuda) append_decoded_cuda(context, k, v, cache);
}

void decode_attention(Context& context, const Tensor& q, std::span<const KeyValueSpan> prefix, const DecodeCache& cache,
                      const Tensor& out) {
  MSA_CHECK(decode_fits(q, prefix, cache) && same_shape(q, out) && out.dtype == DType::kBF16);
  MSA_CHECK(runs_on_cuda(context, q, out, cache.k, cache.v, cache.length, cache.counters, cache.partials));
  if constexpr (kHasCuda) decode_attention_cuda(context, q, prefix, cache, out);
}

}  // namespace msa
