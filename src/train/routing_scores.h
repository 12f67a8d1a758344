// Scores of documents, differentiable. s_j = max over routed tokens and the document's chunks of ⟨query, key⟩; the late
// score takes the mean over the tokens instead, as ColBERT does (Khattab and Zaharia, 2020).
#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace msa::train {

/// Where rows of one matrix belong: owner o holds rows [starts[o], starts[o + 1]).
struct RowOwners {
  std::vector<int64_t> starts;
  torch::Tensor padded;  // int64 [owners, longest], on the device; absent rows point to `starts.back()`
  torch::Tensor owner;   // int64 [rows] of each row
  torch::Tensor share;   // float32 [rows] 1 / rows of its owner

  static RowOwners from(std::vector<int64_t> starts, torch::Device device);
  int64_t size() const { return static_cast<int64_t>(starts.size()) - 1; }
};

/// The score of an owner without rows: far below any inner product. The late score of a sample without rows is 0.
constexpr double kNoScore = -1e4;

struct DocumentScores {
  torch::Tensor best;  // float32 [samples, documents] max over tokens of the max over chunks
  torch::Tensor late;  // float32 [samples, documents] mean over tokens of the max over chunks
};

/// queries [R, n] owned by samples, keys [C, n] owned by documents; both scores from one product. The gradient goes to
/// the one chunk that gave a token's maximum. Keeps that chunk's number (a byte) for each token and document, not the
/// products. Deterministic.
DocumentScores routing_scores(const torch::Tensor& queries, const RowOwners& samples, const torch::Tensor& keys,
                              const RowOwners& documents);

}  // namespace msa::train
