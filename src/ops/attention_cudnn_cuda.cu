// Packed sequences by cuDNN: the shape rounded up so that few plans serve all packs, and where the sequences lie.
#include <algorithm>
#include <bit>

#include "ops/attention_cuda.h"
#include "ops/kernels.cuh"

namespace msa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kLeastSequences = 8, kLeastLength = 128;  // a plan takes long to make: few of them

/// places [5, most + 1]: elements of q, k, v and out before each sequence, then its tokens (PackedAttentionData).
__global__ void places_kernel(const int* starts, int sequences, int most, int4 strides, int* places) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x), row = most + 1;
  if (i > most) return;
  const int start = starts[min(i, sequences)];
  places[i] = start * strides.x;
  places[row + i] = start * strides.y;
  places[2 * row + i] = start * strides.z;
  places[3 * row + i] = start * strides.w;
  places[4 * row + i] = i < sequences ? starts[i + 1] - start : 0;
}

int64_t round_up(int64_t n, int64_t least) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max(n, least))));
}

PackedAttentionShape shape_of(const AttentionParameters& p, const DeviceSpan& keys, const Sequences& sequences) {
  PackedAttentionShape s;
  s.heads = p.heads, s.groups = p.heads / p.heads_per_group, s.d = p.d;
  const auto elements = [](int64_t bytes) { return bytes / static_cast<int64_t>(sizeof(__nv_bfloat16)); };
  s.q_stride = elements(p.q_row_bytes), s.out_stride = elements(p.out_row_bytes);
  s.k_stride = elements(keys.k_row_bytes), s.v_stride = elements(keys.v_row_bytes);
  int64_t longest = 0;
  for (size_t i = 1; i < sequences.starts.size(); ++i) {
    longest = std::max(longest, sequences.starts[i] - sequences.starts[i - 1]);
  }
  s.sequences = round_up(static_cast<int64_t>(sequences.starts.size()) - 1, kLeastSequences);
  s.longest = round_up(longest, kLeastLength);
  return s;
}

}  // namespace

bool attend_cudnn(Context& context, const AttentionParameters& p, const DeviceSpan& keys, const Sequences& sequences) {
  Cudnn* const cudnn = context.cuda->cudnn();
  if (cudnn == nullptr) return false;
  const PackedAttentionShape s = shape_of(p, keys, sequences);
  const int64_t widest = std::max({s.q_stride, s.k_stride, s.v_stride, s.out_stride});
  int64_t workspace_bytes = 0;
  if (p.rows * widest >= int64_t{1} << 31 || !cudnn->has_plan(s, workspace_bytes)) return false;
  PackedAttentionData data;
  data.q = p.q, data.k = keys.k, data.v = keys.v, data.out = p.out;
  const Tensor places = context.scratch[0].tensor(DType::kI32, {5, s.sequences + 1}, context.device);
  const int4 strides{static_cast<int>(s.q_stride), static_cast<int>(s.k_stride), static_cast<int>(s.v_stride),
                     static_cast<int>(s.out_stride)};
  const auto blocks = static_cast<unsigned>(ceil_div(s.sequences + 1, kThreads));
  places_kernel<<<blocks, kThreads, 0, cuda_stream(context)>>>(
      sequences.device_starts.as<int>(), static_cast<int>(sequences.starts.size()) - 1, static_cast<int>(s.sequences),
      strides, places.as<int>());
  check_launch("places of sequences");
  data.places = places.as<int32_t>();
  context.scratch[1].reserve(static_cast<size_t>(workspace_bytes), context.device);
  data.workspace = context.scratch[1].data();
  cudnn->attend(s, data);
  return true;
}

}  // namespace msa::cuda
