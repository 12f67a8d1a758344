#include "engine/id_decoder.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "core/error.h"

namespace msa {

IdDecoder::IdDecoder(std::vector<IdCandidate> candidates, float prior_weight)
    : alive_(std::move(candidates)), prior_weight_(prior_weight) {
  MSA_CHECK(!alive_.empty());
  for (const IdCandidate& c : alive_) MSA_CHECK(!c.tokens.empty());
}

std::vector<IdDecoder::Choice> IdDecoder::choices() const {
  std::map<int32_t, double> mass;
  double total = 0;
  for (const IdCandidate& c : alive_) {
    mass[c.tokens[written_]] += c.prior;
    total += c.prior;
  }
  std::vector<Choice> out;
  out.reserve(mass.size());
  for (const auto& [token, m] : mass) out.push_back({token, prior_weight_ * std::log(m / total + 1e-9)});
  return out;
}

int32_t IdDecoder::best(std::span<const float> logits) const {
  Choice best;
  double best_score = -std::numeric_limits<double>::infinity();
  for (const Choice& c : choices()) {
    const double score = logits[static_cast<size_t>(c.token)] + c.log_prior;
    if (score > best_score) {
      best_score = score;
      best = c;
    }
  }
  return best.token;
}

bool IdDecoder::take(int32_t token) {
  std::erase_if(alive_, [&](const IdCandidate& c) { return c.tokens[written_] != token; });
  MSA_CHECK(!alive_.empty());
  ++written_;
  const bool complete = alive_.front().tokens.size() == written_;
  MSA_CHECK(!complete || alive_.size() == 1);
  return complete;
}

const IdCandidate& IdDecoder::result() const { return alive_.front(); }

std::vector<double> router_prior(std::span<const float> scores, float temperature) {
  std::vector<double> prior(scores.size());
  const float top = scores.empty() ? 0.0f : *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (size_t i = 0; i < scores.size(); ++i) total += prior[i] = std::exp((scores[i] - top) / temperature);
  for (double& p : prior) p = std::max(p / total, 1e-12);
  return prior;
}

}  // namespace msa
