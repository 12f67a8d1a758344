// Scores of documents, differentiable: s_j = max over routed tokens and the document's chunks of ⟨query, key⟩.
#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace msa::train {

/// Where rows of one matrix belong: owner o holds rows [starts[o], starts[o + 1]).
struct RowOwners {
  std::vector<int64_t> starts;
  torch::Tensor padded;  // int64 [owners, longest], on the device; absent rows point to `starts.back()`

  static RowOwners from(std::vector<int64_t> starts, torch::Device device);
  int64_t size() const { return static_cast<int64_t>(starts.size()) - 1; }
};

/// The score of an owner without rows: far below any inner product.
constexpr double kNoScore = -1e4;

/// queries [R, n] owned by samples, keys [C, n] owned by documents → float32 [samples, documents]. The gradient goes to
/// the one token and chunk that gave the maximum. Deterministic.
torch::Tensor routing_scores(const torch::Tensor& queries, const RowOwners& samples, const torch::Tensor& keys,
                             const RowOwners& documents);

}  // namespace msa::train
