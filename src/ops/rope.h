// Rotary position embedding, halves rotated against each other (the Hugging Face layout).
#pragma once
#include <vector>

#include "core/context.h"
#include "core/tensor.h"
#include "ops/indices.h"

namespace msa {

/// cos and sin of position · theta^(-2i/d), float32, for positions [0, max_positions).
struct RopeTable {
  RopeTable() = default;
  RopeTable(int head_dim, float theta, int max_positions);
  /// Makes the copy that kernels read, where the context runs on CUDA.
  void prepare(Context& context);

  int head_dim = 0;
  int max_positions = 0;
  std::vector<float> cos_sin;  // [max_positions, 2, head_dim / 2]
  Tensor device;               // the same on the GPU
  Buffer device_memory;
};

/// x F32 (on CUDA also BF16) [T, heads, d] in place (rows may be strided); positions [T], each below
/// table.max_positions.
void rope(Context& context, const RopeTable& table, const Indices& positions, const Tensor& x);

}  // namespace msa
