#include "router/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/quant.h"
#include "ops/fold_heads.h"
#include "ops/max_inner_product.h"

namespace msa {
namespace {

constexpr float kDead = -std::numeric_limits<float>::infinity();
constexpr float kNormFloor = 1e-12f;  // as torch.nn.functional.normalize
// Scores of one tile of chunks (256 KiB) stay in the cache until their documents' maxima are taken.
constexpr int64_t kTileChunks = 65536;

float head_scale(const float* head, int64_t d, Similarity similarity) {  // head [d]
  if (similarity == Similarity::kScaledDot) return 1.0f / std::sqrt(static_cast<float>(d));
  double squares = 0;
  for (int64_t i = 0; i < d; ++i) squares += static_cast<double>(head[i]) * head[i];
  return 1.0f / std::max(static_cast<float>(std::sqrt(squares)), kNormFloor);
}

/// The first document after `begin` whose chunks no longer fit the tile; at least one document is taken.
int64_t tile_end(std::span<const int64_t> chunk_starts, int64_t begin) {
  const auto first = chunk_starts.begin() + begin;
  const auto past = std::upper_bound(first + 1, chunk_starts.end(), *first + kTileChunks);
  return std::max<int64_t>(begin + 1, past - chunk_starts.begin() - 1);
}

}  // namespace

void fold_query_heads(const Tensor& q, const HeadFold& how, const Tensor& out) {
  const auto [similarity, n_heads, kv_heads, weight] = how;
  MSA_CHECK(n_heads >= 1 && kv_heads >= 1 && n_heads % kv_heads == 0);
  const int64_t d = out.row_elements() / kv_heads;
  MSA_CHECK(q.dtype == DType::kF32 && out.dtype == DType::kF32 && q.rows() == out.rows());
  MSA_CHECK(q.row_elements() == n_heads * d && out.row_elements() == kv_heads * d);
  const int group = n_heads / kv_heads;
  for (int64_t t = 0; t < q.rows(); ++t) {
    float* const folded = out.row<float>(t);
    std::fill_n(folded, kv_heads * d, 0.0f);
    for (int h = 0; h < n_heads; ++h) {
      const float* const head = q.row<float>(t) + h * d;
      const float scale = weight * head_scale(head, d, similarity) / static_cast<float>(n_heads);
      float* const to = folded + (h / group) * d;
      for (int64_t i = 0; i < d; ++i) to[i] += head[i] * scale;
    }
  }
}

Tensor fold_query(Context& context, const Tensor& q, const HeadFold& how, Buffer& memory) {
  const Tensor out = memory.tensor(DType::kF32, {q.rows(), q.row_elements() / how.n_heads * how.kv_heads}, q.device);
  if (on_cuda(q)) {
    const bool normalise = how.similarity == Similarity::kCosine;
    fold_heads_on_device(context, q, {how.n_heads, how.kv_heads, normalise, how.weight}, out);
  } else {
    fold_query_heads(q, how, out);
  }
  return out;
}

Router::Router(std::shared_ptr<const Snapshot> snapshot) : snapshot_(std::move(snapshot)), slot_starts_{0} {
  for (const auto& segment : snapshot_->segments) slot_starts_.push_back(slot_starts_.back() + segment->n_documents());
}

void Router::score(Context& context, int layer_index, const Tensor& q, std::vector<float>& document_scores,
                   std::span<const uint8_t> allowed) const {
  MSA_CHECK(q.rows() >= 1 && q.row_elements() == snapshot_->shape.row_elements());
  MSA_CHECK(allowed.empty() || static_cast<int64_t>(allowed.size()) == n_slots());
  document_scores.assign(static_cast<size_t>(n_slots()), kDead);
  std::vector<float> chunk_scores;  // of one tile
  for (size_t s = 0; s < snapshot_->segments.size(); ++s) {
    const Segment& segment = *snapshot_->segments[s];
    const Tensor keys = segment.keys(layer_index);
    const std::span<const int64_t> starts = segment.chunk_starts();
    const LiveFlags& live = snapshot_->live[s];
    float* const scores = document_scores.data() + slot_starts_[s];  // [documents of the segment]
    const uint8_t* const wanted = allowed.empty() ? nullptr : allowed.data() + slot_starts_[s];  // the same
    for (int64_t begin = 0, end; begin < segment.n_documents(); begin = end) {
      end = tile_end(starts, begin);
      const int64_t first = starts[static_cast<size_t>(begin)];
      const int64_t last = starts[static_cast<size_t>(end)];
      chunk_scores.resize(static_cast<size_t>(last - first));
      max_inner_product(context, q, keys.slice_rows(first, last),
                        Tensor(chunk_scores.data(), DType::kF32, {last - first}));
      for (int64_t i = begin; i < end; ++i) {
        if (live[static_cast<size_t>(i)] == 0 || (wanted != nullptr && wanted[i] == 0)) continue;
        float best = kDead;
        for (int64_t c = starts[static_cast<size_t>(i)]; c < starts[static_cast<size_t>(i) + 1]; ++c) {
          best = std::max(best, chunk_scores[static_cast<size_t>(c - first)]);  // a NaN never wins
        }
        scores[i] = best;
      }
    }
  }
}

std::vector<float> Router::late_scores(int layer_index, const Tensor& q,
                                       std::span<const ScoredDocument> documents) const {
  MSA_CHECK(q.rows() >= 1 && q.row_elements() == snapshot_->shape.row_elements());
  const int64_t n = q.row_elements();
  std::vector<float> out, keys;
  for (const ScoredDocument& d : documents) {
    const Segment& segment = *snapshot_->segments[static_cast<size_t>(d.segment)];
    const auto at = static_cast<size_t>(d.index);
    const Tensor rows =
        segment.keys(layer_index).slice_rows(segment.chunk_starts()[at], segment.chunk_starts()[at + 1]);
    keys.resize(static_cast<size_t>(rows.rows() * n));
    for (int64_t c = 0; c < rows.rows(); ++c) dequantise_row(rows.dtype, rows.row<void>(c), n, keys.data() + c * n);
    double sum = 0;
    for (int64_t t = 0; t < q.rows(); ++t) {
      float best = kDead;
      for (int64_t c = 0; c < rows.rows(); ++c) {
        best =
            std::max(best, std::inner_product(keys.data() + c * n, keys.data() + (c + 1) * n, q.row<float>(t), 0.0f));
      }
      sum += best;
    }
    out.push_back(static_cast<float>(sum / static_cast<double>(q.rows())));
  }
  return out;
}

ScoredDocument Router::slot(int64_t slot) const {
  MSA_CHECK(slot >= 0 && slot < n_slots());
  const auto past = std::upper_bound(slot_starts_.begin(), slot_starts_.end(), slot);
  const int64_t s = past - slot_starts_.begin() - 1;
  const int64_t index = slot - slot_starts_[static_cast<size_t>(s)];
  return {snapshot_->segments[static_cast<size_t>(s)]->id(index), 0.0f, static_cast<int>(s), index};
}

std::vector<ScoredDocument> Router::top_k(std::span<const float> document_scores, int k,
                                          std::span<const uint8_t> allowed) const {
  MSA_CHECK(static_cast<int64_t>(document_scores.size()) == n_slots());
  MSA_CHECK(allowed.empty() || static_cast<int64_t>(allowed.size()) == n_slots());
  std::vector<ScoredDocument> best;  // a heap, the worst on top
  if (k <= 0) return best;
  const auto better = [](const ScoredDocument& a, const ScoredDocument& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
  };
  for (size_t s = 0; s < snapshot_->segments.size(); ++s) {
    const Segment& segment = *snapshot_->segments[s];
    for (int64_t i = 0; i < segment.n_documents(); ++i) {
      const size_t at = static_cast<size_t>(slot_starts_[s] + i);
      const float score = document_scores[at];
      const bool full = best.size() == static_cast<size_t>(k);
      if (!(score > kDead) || (full && score < best.front().score) || (!allowed.empty() && allowed[at] == 0)) continue;
      const ScoredDocument candidate{segment.id(i), score, static_cast<int>(s), i};
      if (full && !better(candidate, best.front())) continue;
      if (full) {
        std::pop_heap(best.begin(), best.end(), better);
        best.pop_back();
      }
      best.push_back(candidate);
      std::push_heap(best.begin(), best.end(), better);
    }
  }
  std::sort_heap(best.begin(), best.end(), better);
  return best;
}

}  // namespace msa
