#include <cmath>

#include "core/cuda_state.h"
#include "ops/attention_cuda.h"
#include "ops/cuda_ops.h"

namespace msa {
namespace {

using cuda::AttentionParameters;
using cuda::DeviceSpans;

AttentionParameters parameters(const Tensor& q, int64_t groups, const Tensor& out) {
  MSA_CHECK(q.dim(2) <= cuda::kMostHeadDim && q.rows() < (int64_t{1} << 31));
  AttentionParameters p{};
  p.q = q.data;
  p.out = out.data;
  p.q_row_bytes = q.row_bytes;
  p.out_row_bytes = out.row_bytes;
  p.rows = static_cast<int>(q.rows());
  p.heads = static_cast<int>(q.dim(1));
  p.heads_per_group = static_cast<int>(q.dim(1) / groups);
  p.d = static_cast<int>(q.dim(2));
  p.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(p.d)));
  p.q_bf16 = q.dtype == DType::kBF16;
  p.out_bf16 = out.dtype == DType::kBF16;
  return p;
}

bool is_multiple(const void* p, int64_t row_bytes, int64_t of) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(of) == 0 && row_bytes % of == 0;
}

bool flash_fits(const AttentionParameters& p, const DeviceSpans& spans) {
  bool fits = (p.d == 64 || p.d == 128) && p.q_bf16 && p.out_bf16;
  fits = fits && is_multiple(p.q, p.q_row_bytes, 16) && is_multiple(p.out, p.out_row_bytes, 4);
  for (int s = 0; s < spans.count; ++s) {
    const cuda::DeviceSpan& span = spans.list[s];
    fits = fits && span.bf16 && is_multiple(span.k, span.k_row_bytes, 16) && is_multiple(span.v, span.v_row_bytes, 16);
  }
  return fits;
}

void attend(Context& context, const AttentionParameters& p, const DeviceSpans& spans, int64_t tiles) {
  flash_fits(p, spans) ? cuda::attend_flash(context, p, spans, tiles) : cuda::attend_simple(context, p, spans, tiles);
}

}  // namespace

void cuda::append_span(DeviceSpans& spans, const KeyValueSpan& span) {
  if (span.k.rows() == 0) return;
  MSA_CHECK(spans.count < DeviceSpans::kMost);
  const int rows = static_cast<int>(span.k.rows());
  spans.list[spans.count++] = {
      span.k.data, span.v.data, span.k.row_bytes, span.v.row_bytes, spans.keys, rows, span.k.dtype == DType::kBF16};
  spans.keys += rows;
}

std::string packed_attention_backend_cuda(Context& context) {
  const Cudnn* const cudnn = context.cuda->cudnn();
  return cudnn != nullptr ? cudnn->name() : "own kernels";
}

void packed_causal_attention_cuda(Context& context, const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Sequences& sequences, const Tensor& out) {
  AttentionParameters p = parameters(q, k.dim(1), out);
  p.tiles = static_cast<const int4*>(sequences.tiles.data);
  DeviceSpans spans{};
  cuda::append_span(spans, {k, v});
  const bool cudnn_fits = flash_fits(p, spans) && is_multiple(p.out, p.out_row_bytes, 16);
  if (cudnn_fits && cuda::attend_cudnn(context, p, spans.list[0], sequences)) return;
  attend(context, p, spans, sequences.tiles.rows());
}

void prefixed_attention_cuda(Context& context, const Tensor& q, std::span<const KeyValueSpan> spans,
                             const Tensor& out) {
  const AttentionParameters p = parameters(q, spans.back().k.dim(1), out);
  DeviceSpans list{};
  for (const KeyValueSpan& span : spans) cuda::append_span(list, span);
  attend(context, p, list, 0);
}

}  // namespace msa
