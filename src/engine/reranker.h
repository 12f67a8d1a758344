// Reading before citing: the best candidates of a hop are judged by their text, one by one, by the model itself.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/id_decoder.h"
#include "engine/model.h"
#include "engine/session.h"

namespace msa {

/// One question's pointwise reranker (PromptTemplate::Rerank). What comes before the candidate is fed once.
class Reranker {
 public:
  /// `earlier`: texts fetched in earlier hops. `first_position` as in Session.
  Reranker(Context& context, const Model& model, std::string_view question, std::span<const std::string_view> earlier,
           int first_position);

  /// log p(yes) / p(no) of a candidate. A text too long for the model's context is judged by its beginning; none where
  /// nothing of it fits.
  std::optional<float> log_odds(Context& context, std::string_view text);

 private:
  const Model& model_;
  Session session_;
  int common_ = 0;  // length of the session before a candidate
  Prompt ask_;
};

/// p(yes).
float probability(float log_odds);

/// prior · exp(weight · log-odds), normalised. Candidates that were not read have the least log-odds of those that
/// were, 0 at most: with none read the prior stays.
std::vector<double> weighed(std::span<const double> prior, std::span<const std::optional<float>> log_odds,
                            float weight);

}  // namespace msa
