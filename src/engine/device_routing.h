// One query's routing on a GPU. Scores stay there; only the documents chosen come back.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "core/staging.h"
#include "ops/best_scores.h"
#include "router/device_keys.h"

namespace msa {

/// Documents are named by their slots (Router). With quantised keys a layer's scores are known for its best documents
/// and bounded for the others; what else is asked for is scored when it is.
class DeviceRouting {
 public:
  struct Query {
    int n_layers;                      // routing layers
    int top_k;                         // documents of a layer, 0 … all
    std::span<const uint8_t> allowed;  // [slots] or empty; must outlive this
    bool keeps_queries = false;        // query() is going to be asked for
  };
  DeviceRouting(std::shared_ptr<const DeviceKeys> keys, const Query& query) : keys_(std::move(keys)), query_(query) {}

  bool has_routed() const { return context_ != nullptr; }
  /// q F32 [n, G·d] as fold_query() makes it. Only enqueues work where all keys lie on the GPU. The context must live
  /// as long as anything is asked for.
  void route(Context& context, int layer, const Tensor& q);
  /// The best of the layer routed last: waits for its choice, not for what was launched after route(). Empty where
  /// top_k is 0; with more than kMostBestScores the scores() are to be sorted instead.
  std::vector<BestScore> chosen();
  /// The best by mean over the layers; count: 1 … kMostBestScores.
  std::vector<BestScore> best(int count);
  /// Every document's [slots].
  void scores(int layer, std::vector<float>& out);
  /// A layer's query of its last route.
  const Tensor& query(int layer) const { return q_[static_cast<size_t>(layer)]; }
  /// One document's in every layer.
  std::vector<float> layer_scores(int64_t slot);

  /// Chunks that quantised keys could not rule out, over all layers, and layers where these were too many.
  struct Statistics {
    bool bounded = false;
    int64_t chunks = 0, candidates = 0;
    int fell_back = 0;
  };
  Statistics statistics();

 private:
  bool keeps_queries() const { return query_.keeps_queries || is_bounded(); }
  bool is_bounded() const { return keys_->has_bounds() && query_.top_k >= 1 && query_.top_k <= kMostBestScores; }
  DeviceKeys::Scope scope() const { return {allowed_, query_.allowed}; }
  void begin(Context& context);
  Tensor row(const Tensor& all, int layer) const;
  void settle(int count);
  bool is_settled(int64_t slot) const;

  std::shared_ptr<const DeviceKeys> keys_;
  Query query_;
  Context* context_ = nullptr;
  Tensor scores_;   // F32 [layers, slots]
  Tensor allowed_;  // I8 [slots], or empty
  Buffer scores_memory_, allowed_memory_;
  Tensor chosen_;  // on its way
  std::shared_ptr<CudaMark> chosen_at_;
  Buffer chosen_memory_;
  Staging chosen_staging_;
  // Where the scores are bounded.
  Tensor lower_, upper_, candidates_;  // F32 [layers, slots] twice, I32 [layers]
  Buffer bounds_memory_, candidates_memory_;
  std::vector<Buffer> q_memory_;     // per layer
  std::vector<Tensor> q_;            // the same: q of its last route
  int settled_ = 0;                  // so many of the best by mean have right scores in every layer
  std::vector<uint8_t> is_settled_;  // [slots] whose scores these are
};

}  // namespace msa
