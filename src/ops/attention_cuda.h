// Between attention_cuda.cu (which kernel, its parameters) and the kernels.
#pragma once
#include <cstdint>

#include "core/context.h"
#include "ops/attention.h"

namespace msa::cuda {

/// Keys and values [first, first + rows) of a context: k, v [rows, G, d].
struct DeviceSpan {
  const void* k;
  const void* v;
  int64_t k_row_bytes, v_row_bytes;
  int first, rows;
  int bf16;  // else F32
};

/// A list of spans as a kernel parameter: nothing to upload.
struct DeviceSpans {
  static constexpr int kMost = 64;
  DeviceSpan list[kMost];
  int count;
  int keys;  // of all
};

/// Behind the spans already there; an empty one leaves no trace.
void append_span(DeviceSpans& spans, const KeyValueSpan& span);

struct AttentionParameters {
  const void* q;  // [T, H, d]
  void* out;      // [T, H, d]
  int64_t q_row_bytes, out_row_bytes;
  const int4* tiles;  // packed: [n, 4] (ops/indices.h); null: one sequence over all spans
  int rows;           // T
  int heads, heads_per_group, d;
  float scale;  // d^-1/2
  int q_bf16, out_bf16;
};

/// Any head size up to kMostHeadDim and any mix of types, float32 throughout. Packed: one span, the whole of k and v.
constexpr int kMostHeadDim = 512;
void attend_simple(Context& context, const AttentionParameters& p, const DeviceSpans& spans, int64_t tiles);

/// Head size 64 or 128, all BF16, rows of q, k, v at multiples of 16 bytes and those of out of 4.
void attend_flash(Context& context, const AttentionParameters& p, const DeviceSpans& spans, int64_t tiles);

/// Packed sequences by cuDNN: as attend_flash, the rows of out at multiples of 16 bytes too. False, and nothing done,
/// where there is no cuDNN or it has no plan.
bool attend_cudnn(Context& context, const AttentionParameters& p, const DeviceSpan& keys, const Sequences& sequences);

}  // namespace msa::cuda
