#include "engine/reranker.h"

#include <algorithm>
#include <cmath>

namespace msa {

Reranker::Reranker(Context& context, const Model& model, std::string_view question,
                   std::span<const std::string_view> earlier, int first_position)
    : model_(model),
      session_(context, model.transformer(), model.head(), nullptr, first_position),
      ask_(model.prompts().rerank_ask(question)) {
  const PromptTemplate& prompts = model.prompts();
  Prompt common = prompts.rerank_question(question);
  for (const std::string_view text : earlier) common.append(prompts.rerank_document(model.tokenizer().encode(text)));
  const int room = session_.room() - static_cast<int>(ask_.tokens.size());
  if (static_cast<int>(common.tokens.size()) < room) session_.feed(context, common.tokens);
  common_ = session_.length();
}

std::optional<float> Reranker::log_odds(Context& context, std::string_view text) {
  session_.rewind(common_);
  const PromptTemplate& prompts = model_.prompts();
  std::vector<int32_t> tokens = model_.tokenizer().encode(text);
  const size_t around = prompts.rerank_document({}).tokens.size() + ask_.tokens.size();
  const auto room = static_cast<size_t>(std::max(0, session_.room()));
  if (tokens.empty() || common_ == model_.head().length() || room <= around) return std::nullopt;
  tokens.resize(std::min(tokens.size(), room - around));
  Prompt prompt = prompts.rerank_document(tokens);
  prompt.append(ask_);
  const std::span<const float> logits = session_.feed(context, prompt.tokens);
  return logits[static_cast<size_t>(prompts.rerank.yes)] - logits[static_cast<size_t>(prompts.rerank.no)];
}

float probability(float log_odds) { return 1 / (1 + std::exp(-log_odds)); }

std::vector<double> weighed(std::span<const double> prior, std::span<const std::optional<float>> log_odds,
                            float weight) {
  float least = 0;
  for (const std::optional<float>& odds : log_odds) least = std::min(least, odds.value_or(0));
  std::vector<float> scores;
  for (size_t i = 0; i < prior.size(); ++i) {
    scores.push_back(static_cast<float>(std::log(prior[i])) + weight * log_odds[i].value_or(least));
  }
  return router_prior(scores, 1);
}

}  // namespace msa
