#include "ops/chunk_mean.h"

#include <algorithm>
#include <cmath>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/chunk_mean.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "ops/check.h"
#include "ops/cuda_ops.h"
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

template <class In, class Out>
HWY_INLINE void mean_rows(const Tensor& x, int64_t begin, int64_t end, Out* out) {
  const float scale = 1.0f / static_cast<float>(end - begin);
  for_each_vector(static_cast<size_t>(x.dim(1)), [&](auto d, size_t i) HWY_ATTR {
    auto sum = hn::Zero(d);
    for (int64_t t = begin; t < end; ++t) sum = hn::Add(sum, load_float(d, x.row<In>(t) + i));
    store_float(d, hn::Mul(sum, hn::Set(d, scale)), out + i);
  });
}

/// The mean of rows [begin, end) of x → row c of out.
void chunk_mean_any(const Tensor& x, int64_t begin, int64_t end, const Tensor& out, int64_t c) {
  if (x.dtype == DType::kF32) {
    out.dtype == DType::kF32 ? mean_rows<float>(x, begin, end, out.row<float>(c))
                             : mean_rows<float>(x, begin, end, out.row<bf16>(c));
  } else {
    out.dtype == DType::kF32 ? mean_rows<bf16>(x, begin, end, out.row<float>(c))
                             : mean_rows<bf16>(x, begin, end, out.row<bf16>(c));
  }
}

void l2_normalize_head(float* x, size_t n) {
  const float scale = 1.0f / std::max(std::sqrt(sum_of_squares(x, n)), 1e-12f);
  for_each_vector(
      n, [&](auto d, size_t j) HWY_ATTR { hn::StoreU(hn::Mul(hn::LoadU(d, x + j), hn::Set(d, scale)), d, x + j); });
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa {

HWY_EXPORT(chunk_mean_any);
HWY_EXPORT(l2_normalize_head);

int64_t count_chunks(std::span<const int64_t> starts, int chunk_tokens) {
  MSA_CHECK(chunk_tokens > 0);
  int64_t chunks = 0;
  for (size_t s = 1; s < starts.size(); ++s) {
    MSA_CHECK(starts[s] >= starts[s - 1]);
    chunks += (starts[s] - starts[s - 1] + chunk_tokens - 1) / chunk_tokens;
  }
  return chunks;
}

void chunk_mean(Context& context, const Tensor& x, const Sequences& sequences, int chunk_tokens, const Tensor& out) {
  const std::span<const int64_t> starts = sequences.starts;
  MSA_CHECK(x.rank == 2 && out.rank == 2 && is_f32_or_bf16(x) && is_f32_or_bf16(out) && x.dim(1) == out.dim(1));
  MSA_CHECK(!starts.empty() && starts.front() == 0 && starts.back() == x.rows());
  MSA_CHECK(out.rows() == count_chunks(starts, chunk_tokens));
  if (runs_on_cuda(context, x, out)) {
    MSA_CHECK(sequences.chunk_tokens == chunk_tokens && sequences.chunks.device == context.device);
    if constexpr (kHasCuda) return chunk_mean_cuda(context, x, sequences.chunks, out);
  }
  std::vector<int64_t> begins, ends;  // rows of each chunk
  for (size_t s = 1; s < starts.size(); ++s) {
    for (int64_t t = starts[s - 1]; t < starts[s]; t += chunk_tokens) {
      begins.push_back(t);
      ends.push_back(std::min<int64_t>(t + chunk_tokens, starts[s]));
    }
  }
  context.pool.parallel_for(out.rows(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t c = begin; c < end; ++c) {
      const size_t i = static_cast<size_t>(c);
      HWY_DYNAMIC_DISPATCH(chunk_mean_any)(x, begins[i], ends[i], out, c);
    }
  });
}

void l2_normalize_heads(Context& context, const Tensor& x) {
  MSA_CHECK(x.rank == 3 && is_f32(x));
  if (runs_on_cuda(context, x)) {
    if constexpr (kHasCuda) return l2_normalize_heads_cuda(context, x);
  }
  const int64_t heads = x.dim(1), d = x.dim(2);
  context.pool.parallel_for(x.rows(), 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        HWY_DYNAMIC_DISPATCH(l2_normalize_head)(x.row<float>(t) + h * d, static_cast<size_t>(d));
      }
    }
  });
}

}  // namespace msa
#endif  // HWY_ONCE
