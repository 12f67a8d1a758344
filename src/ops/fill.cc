#include "ops/fill.h"

#include "ops/check.h"
#include "ops/cuda_ops.h"
#include "ops/fill_hash.h"

namespace msa {

void fill_uniform(Context& context, const Tensor& t, float limit, uint32_t seed, int64_t first) {
  MSA_CHECK(is_f32_or_bf16(t) && t.is_dense());
  if (runs_on_cuda(context, t)) {
    if constexpr (kHasCuda) return fill_uniform_cuda(context, t, limit, seed, first);
  }
  context.pool.parallel_for(t.elements(), 4096, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float x = limit * uniform_of(static_cast<uint64_t>(first + i), seed);
      if (t.dtype == DType::kF32)
        t.as<float>()[i] = x;
      else
        t.as<bf16>()[i] = to_bf16(x);
    }
  });
}

}  // namespace msa
