#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.h"

namespace msa {

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  if (!(options.temperature >= 0.0f) || !std::isfinite(options.temperature)) {
    throw Error("the temperature must be 0 or more", "--temperature", "use 0 for greedy answers");
  }
  if (!(options.top_p > 0.0f && options.top_p <= 1.0f)) {
    throw Error("top-p must lie above 0 and at most at 1", "--top-p", "use 1 to keep every token");
  }
}

int32_t argmax(std::span<const float> logits) {
  MSA_CHECK(!logits.empty());
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

int32_t Sampler::pick(std::span<const float> logits) {
  const int32_t best = argmax(logits);
  if (options_.temperature == 0.0f) return best;
  const float top = logits[static_cast<size_t>(best)];
  std::vector<double> weight(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) weight[i] = std::exp((logits[i] - top) / options_.temperature);
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return weight[static_cast<size_t>(a)] > weight[static_cast<size_t>(b)];
  });
  const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
  double kept = 0;
  size_t count = 0;
  while (count < order.size() && (count == 0 || kept < options_.top_p * total)) {
    kept += weight[static_cast<size_t>(order[count++])];
  }
  // 53 random bits, not a library distribution: the same seed gives the same answer with every standard library.
  double left = static_cast<double>(random_() >> 11) * 0x1p-53 * kept;
  for (size_t i = 0; i < count; ++i) {
    left -= weight[static_cast<size_t>(order[i])];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace msa
