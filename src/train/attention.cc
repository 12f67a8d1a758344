#include "train/attention.h"

#include <cmath>
#include <limits>
#include <vector>

namespace msa::train {
namespace {

#if TORCH_VERSION_MAJOR >= 2
constexpr bool kHasFused = true;

torch::Tensor fused(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const Segments& s) {
  return std::get<0>(at::_flash_attention_forward(q, k, v, s.q_starts, s.k_starts, s.longest_q, s.longest_k,
                                                  /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false));
}
#else
constexpr bool kHasFused = false;

torch::Tensor fused(const torch::Tensor& q, const torch::Tensor&, const torch::Tensor&, const Segments&) { return q; }
#endif

/// One sequence: q [t, H, d], k, v [s, G, d].
torch::Tensor plain(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v) {
  const int64_t t = q.size(0), s = k.size(0), heads = q.size(1), groups = k.size(1), d = q.size(2);
  const auto rows = q.view({t, groups, heads / groups, d}).permute({1, 2, 0, 3});  // [G, H/G, t, d]
  const auto keys = k.permute({1, 2, 0}).unsqueeze(1);                             // [G, 1, d, s]
  const auto values = v.permute({1, 0, 2}).unsqueeze(1);                           // [G, 1, s, d]
  auto scores = torch::matmul(rows, keys) * (1.0 / std::sqrt(static_cast<double>(d)));
  const auto hidden = torch::ones({t, s}, q.options().dtype(torch::kBool)).triu(s - t + 1);
  scores = scores.masked_fill(hidden, -std::numeric_limits<float>::infinity());
  const auto mixed = torch::matmul(torch::softmax(scores.to(torch::kFloat), -1).to(v.scalar_type()), values);
  return mixed.permute({2, 0, 1, 3}).reshape({t, heads, d});
}

}  // namespace

torch::Tensor ragged_attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                               const Segments& segments) {
  if (kHasFused && q.is_cuda() && q.scalar_type() != torch::kFloat) return fused(q, k, v, segments);
  const auto q_starts = segments.q_starts.cpu(), k_starts = segments.k_starts.cpu();
  const int* q_at = q_starts.data_ptr<int>();
  const int* k_at = k_starts.data_ptr<int>();
  std::vector<torch::Tensor> parts;
  for (int64_t i = 0; i + 1 < q_starts.size(0); ++i) {
    parts.push_back(
        plain(q.slice(0, q_at[i], q_at[i + 1]), k.slice(0, k_at[i], k_at[i + 1]), v.slice(0, k_at[i], k_at[i + 1])));
  }
  return torch::cat(parts);
}

}  // namespace msa::train
