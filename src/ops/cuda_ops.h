// The CUDA side of every op: <op>_cuda.cu behind the dispatch in <op>.cc. Arguments are checked there; all tensors lie
// on the context's device.
#pragma once
#include "ops/attention.h"
#include "ops/best_scores.h"
#include "ops/decode_attention.h"
#include "ops/indices.h"
#include "ops/norm_linear.h"
#include "ops/norm_rope.h"
#include "ops/rope.h"

namespace msa {

void embedding_cuda(Context& context, const Tensor& table, const Tensor& ids, const Tensor& out);
void gather_rows_cuda(Context& context, const Tensor& x, const Tensor& rows, const Tensor& out);
void rms_norm_cuda(Context& context, const Tensor& x, const Tensor& weight, float eps, const Tensor& y);
void rms_norm_heads_cuda(Context& context, const Tensor& x, const Tensor& weight, float eps);
void rope_cuda(Context& context, const RopeTable& table, const Tensor& positions, const Tensor& x);
void norm_rope_cuda(Context& context, const NormRope& how, const Tensor& positions, const Tensor& q, const Tensor& k);
void silu_mul_cuda(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out);
void chunk_mean_cuda(Context& context, const Tensor& x, const Tensor& chunks, const Tensor& out);
void l2_normalize_heads_cuda(Context& context, const Tensor& x);
void max_inner_product_cuda(Context& context, const Tensor& queries, const Tensor& keys, const Tensor& out);
void fill_uniform_cuda(Context& context, const Tensor& t, float limit, uint32_t seed, int64_t first);
/// from F32|BF16 → to F32|BF16, both [T, n].
void convert_cuda(Context& context, const Tensor& from, const Tensor& to);
/// weight F32|BF16 [out, in] dense, x F32|BF16 [T, in], y F32|BF16 [T, out]; T >= 1.
void linear_cuda(Context& context, const Tensor& weight, const Tensor& x, const Tensor& y, bool accumulate);
/// The fused kernel of norm_linear and (gated) norm_gate_up; false, and nothing done, where it does not fit.
bool norm_linear_cuda(Context& context, const Normed& in, const Tensor& weight, const Tensor& h, const Tensor& y,
                      bool gated);
struct FoldHeads;
void fold_heads_cuda(Context& context, const Tensor& q, const FoldHeads& how, const Tensor& out);
Tensor best_mean_scores_cuda(Context& context, const Tensor& scores, int k, Buffer& memory);
void argmax_cuda(Context& context, const Tensor& x, const Tensor& out);
void decode_attention_cuda(Context& context, const DecodeInput& in, std::span<const KeyValueSpan> prefix,
                           const DecodeCache& cache, const Tensor& out);
void packed_causal_attention_cuda(Context& context, const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Sequences& sequences, const Tensor& out);
std::string packed_attention_backend_cuda(Context& context);
/// `spans`: prefix, then the local one.
void prefixed_attention_cuda(Context& context, const Tensor& q, std::span<const KeyValueSpan> spans, const Tensor& out);

}  // namespace msa
