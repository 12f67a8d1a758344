// CUDA kernels behind layer_ops.h. bf16 in and out, float32 inside. Everything runs on the default stream, as libtorch
// does. Throw Error when a launch fails. Pointers are device memory; rows are dense unless a stride is given.
#pragma once
#include <cstdint>

namespace msa::train {

constexpr bool kHasFusedKernels = MSA_HAS_CUDA != 0;

using Bf16Bits = uint16_t;

struct RmsNormForward {
  const Bf16Bits* x;    // [T, n]
  const Bf16Bits* y;    // [T, n], added to x; null: nothing is added
  const float* weight;  // [n]
  Bf16Bits* sum;        // [T, n] x + y; null without y
  Bf16Bits* out;        // [T, n]
  float* scale;         // [T] 1 / root mean square
  int64_t rows, n;
  float eps;
};

struct RmsNormBackward {
  const Bf16Bits* x;         // [T, n] what was normed
  const float* weight;       // [n]
  const float* scale;        // [T]
  const Bf16Bits* out_grad;  // [T, n]
  const Bf16Bits* x_grad;    // [T, n] gradient that reaches x by other ways; may be null
  Bf16Bits* grad;            // [T, n]
  int64_t rows, n;
};

/// Queries and keys normed (where q_norm is given) and rotated, values copied.
struct SplitHeads {
  Bf16Bits* qkv;        // [T, (H + 2G)·d]; read forward; backward: for the norms
  const float* cosine;  // [T, d / 2]
  const float* sine;    // [T, d / 2]
  const float* q_norm;  // [d] or null
  const float* k_norm;  // [d] or null
  Bf16Bits *q, *k, *v;  // [T, H·d], [T, G·d] twice: results, or their gradients
  Bf16Bits* qkv_grad;   // [T, (H + 2G)·d], backward only
  int64_t rows;
  int n_heads, n_kv_heads, head_dim;
  float eps;
};

struct SiluMul {
  const Bf16Bits* gate_up;   // [T, 2n]
  Bf16Bits* out;             // [T, n], forward
  const Bf16Bits* out_grad;  // [T, n], backward
  Bf16Bits* gate_up_grad;    // [T, 2n], backward
  int64_t rows, n;
};

struct RunMeans {
  const Bf16Bits* x;      // [T, n], forward
  const int32_t* starts;  // [C + 1]
  float* means;           // [C, n]: result, or its gradient
  Bf16Bits* x_grad;       // [T, n], backward; rows outside all runs are not written
  int64_t runs, n;
};

void fused_rms_norm(const RmsNormForward& p);
void fused_rms_norm_backward(const RmsNormBackward& p);
/// Whether the head dimension suits the kernel.
bool fused_split_heads_takes(int64_t head_dim);
void fused_split_heads(const SplitHeads& p);
void fused_split_heads_backward(const SplitHeads& p);
void fused_silu_mul(const SiluMul& p);
void fused_silu_mul_backward(const SiluMul& p);
void fused_run_means(const RunMeans& p);
void fused_run_means_backward(const RunMeans& p);

}  // namespace msa::train
