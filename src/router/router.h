// Routing (DESIGN section 1, "Route"): scores of every document of a snapshot for one layer's query, and the best k.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "bank/snapshot.h"
#include "core/context.h"
#include "core/tensor.h"

namespace msa {

/// How a query head meets a key: kCosine normalises the head (keys are stored normalised); kScaledDot takes the raw
/// product times d^-1/2.
enum class Similarity { kCosine, kScaledDot };

struct ScoredDocument {
  DocumentId id = 0;
  float score = 0;
  int segment = 0;
  int64_t index = 0;  // of the document in its segment
};

/// How a layer's query heads become one vector a key head.
struct HeadFold {
  Similarity similarity;
  int n_heads, kv_heads;
  float weight = 1;  // of the layer's scores
};

/// q F32 [n, H·d] raw router projections → out F32 [n, G·d]: heads scaled as the similarity says, summed over each
/// G-group, times weight / H. The mean over heads is linear in the key, so one product with a key gives the whole
/// score.
void fold_query_heads(const Tensor& q, const HeadFold& how, const Tensor& out);

/// The same where q lies, in `memory`: a query as Router and DeviceKeys take it.
Tensor fold_query(Context& context, const Tensor& q, const HeadFold& how, Buffer& memory);

/// Scores one snapshot; const and shareable between threads that have their own Context.
/// A slot is a document's place in the snapshot: all documents, dead ones too, segments in order.
class Router {
 public:
  explicit Router(std::shared_ptr<const Snapshot> snapshot);

  const Snapshot& snapshot() const { return *snapshot_; }
  int64_t n_slots() const { return slot_starts_.back(); }

  /// q F32 [n_routed, G·d] as fold_query() makes it, n_routed >= 1 → document_scores [n_slots]: the largest score of
  /// any chunk with any token; -inf where the document is dead or `allowed` [n_slots] (empty = all) is 0.
  void score(Context& context, int layer_index, const Tensor& q, std::vector<float>& document_scores,
             std::span<const uint8_t> allowed = {}) const;

  /// q as above, `documents` of the snapshot → for each the mean over the query's tokens of the largest score of its
  /// chunks with that token (late interaction, arXiv 2004.12832). For few documents: reads their keys alone.
  std::vector<float> late_scores(int layer_index, const Tensor& q, std::span<const ScoredDocument> documents) const;

  ScoredDocument slot(int64_t slot) const;  // score 0
  int64_t slot_of(const ScoredDocument& document) const {
    return slot_starts_[static_cast<size_t>(document.segment)] + document.index;
  }

  /// The k best of `document_scores` [n_slots], highest first, ties by lower id; fewer where fewer exceed -inf.
  /// Slots whose `allowed` [n_slots] (empty = all) is 0 are left out.
  std::vector<ScoredDocument> top_k(std::span<const float> document_scores, int k,
                                    std::span<const uint8_t> allowed = {}) const;

 private:
  std::shared_ptr<const Snapshot> snapshot_;
  std::vector<int64_t> slot_starts_;  // [segments + 1]
};

}  // namespace msa
