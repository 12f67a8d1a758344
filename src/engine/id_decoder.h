// Document ids are written under a constraint: only ids of permitted documents can be produced, and the router's
// distribution over them enters as a prior (DESIGN section 7).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "bank/segment.h"

namespace msa {

/// One id the model may write, spelt in tokens.
struct IdCandidate {
  DocumentId id = 0;
  std::vector<int32_t> tokens;  // "[12]" and the closing token
  double prior = 0;             // the router's probability, > 0
};

/// Walks the tree of the candidates' spellings, one token at a time.
class IdDecoder {
 public:
  /// `prior_weight` 0 leaves the choice to the model alone, as the paper does; 1 multiplies the prior in.
  /// The candidates must not be empty and none may be a beginning of another.
  IdDecoder(std::vector<IdCandidate> candidates, float prior_weight);

  /// Tokens that may come next, each with prior_weight · log of the prior mass behind it, relative to the mass here.
  struct Choice {
    int32_t token = 0;
    double log_prior = 0;
  };
  std::vector<Choice> choices() const;

  /// The best permitted token: logit plus prior; ties go to the lower token.
  int32_t best(std::span<const float> logits) const;

  /// Takes a permitted token. Returns true when an id is complete.
  bool take(int32_t token);
  const IdCandidate& result() const;

 private:
  std::vector<IdCandidate> alive_;  // candidates that agree with what was written
  size_t written_ = 0;
  float prior_weight_;
};

/// Softmax of scores / temperature.
std::vector<double> router_prior(std::span<const float> scores, float temperature);

}  // namespace msa
