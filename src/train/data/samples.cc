#include "train/data/samples.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace msa::train {
namespace {

void append(Sample& sample, std::span<const int32_t> tokens, bool predicted) {
  sample.tokens.insert(sample.tokens.end(), tokens.begin(), tokens.end());
  sample.routed.resize(sample.tokens.size(), 0);
  sample.predicted.resize(sample.tokens.size(), predicted ? 1 : 0);
}

/// Given, not predicted; routes where the template says so.
void append(Sample& sample, const Prompt& prompt) {
  sample.tokens.insert(sample.tokens.end(), prompt.tokens.begin(), prompt.tokens.end());
  sample.routed.insert(sample.routed.end(), prompt.routed.begin(), prompt.routed.end());
  sample.predicted.resize(sample.tokens.size(), 0);
}

}  // namespace

Sample SampleBuilder::ask(SampleKind kind, std::string_view question, std::span<const Hop> hops) const {
  Sample sample;
  sample.kind = kind;
  append(sample, prompts_.query(question));
  for (const Hop& hop : hops) {
    for (const CitedDocument& document : hop) append(sample, prompts_.cite(document.id), false);
    for (const CitedDocument& document : hop) append(sample, prompts_.fetched(document.id, document.text));
  }
  return sample;
}

Sample SampleBuilder::retrieve(std::string_view question, std::span<const Hop> earlier,
                               std::span<const int64_t> targets) const {
  MSA_CHECK(!targets.empty());
  Sample sample = ask(SampleKind::kRetrieve, question, earlier);
  for (const int64_t id : targets) append(sample, prompts_.cite(id), true);
  append(sample, std::vector<int32_t>{prompts_.first_stop()}, true);
  return sample;
}

Sample SampleBuilder::answer(std::string_view question, std::span<const Hop> hops, std::string_view answer) const {
  Sample sample = ask(SampleKind::kAnswer, question, hops);
  append(sample, prompts_.end_of_retrieve(), true);
  append(sample, prompts_.final_question(question));
  append(sample, prompts_.answer_prefix().tokens, true);
  append(sample, tokenizer_.encode(" " + std::string(answer)), true);
  append(sample, std::vector<int32_t>{prompts_.first_stop()}, true);
  return sample;
}

Sample SampleBuilder::read(std::string_view question, std::span<const Hop> hops, std::string_view answer_text) const {
  Sample sample = answer(question, hops, answer_text);
  sample.kind = SampleKind::kRead;
  std::fill(sample.routed.begin(), sample.routed.end(), uint8_t{0});
  return sample;
}

Sample SampleBuilder::rerank(std::string_view question, std::span<const Hop> earlier,
                             std::span<const int32_t> text) const {
  Sample sample;
  sample.kind = SampleKind::kRerank;
  append(sample, prompts_.rerank_question(question));
  for (const Hop& hop : earlier) {
    for (const CitedDocument& document : hop) append(sample, prompts_.rerank_document(document.text));
  }
  append(sample, prompts_.rerank_document(text));
  append(sample, prompts_.rerank_ask(question));
  return sample;
}

Sample SampleBuilder::reconstruct(int64_t id, std::span<const int32_t> text, int64_t count) const {
  Sample sample = ask(SampleKind::kReconstruct, std::string("[").append(std::to_string(id)).append("]"), {});
  append(sample, text.first(std::min(text.size(), static_cast<size_t>(count))), true);
  if (text.size() <= static_cast<size_t>(count)) append(sample, std::vector<int32_t>{prompts_.first_stop()}, true);
  return sample;
}

Sample SampleBuilder::language(std::span<const int32_t> text) const {
  MSA_CHECK(!text.empty());
  Sample sample;
  sample.kind = SampleKind::kLanguage;
  append(sample, text, true);
  sample.predicted.front() = 0;
  return sample;
}

bool cut_texts(std::vector<Hop>& hops, int64_t budget, int64_t least) {
  std::vector<int64_t> lengths;
  for (const Hop& hop : hops) {
    for (const CitedDocument& document : hop) lengths.push_back(static_cast<int64_t>(document.text.size()));
  }
  std::sort(lengths.begin(), lengths.end());
  // Texts up to `longest` stay whole, the others share what is left evenly.
  int64_t left = budget;
  int64_t longest = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    longest = left / static_cast<int64_t>(lengths.size() - i);
    if (lengths[i] > longest) break;
    left -= lengths[i];
    longest = lengths[i];
  }
  if (!lengths.empty() && lengths.back() > longest && longest < least) return false;
  for (Hop& hop : hops) {
    for (CitedDocument& document : hop) {
      document.text = document.text.first(std::min(document.text.size(), static_cast<size_t>(longest)));
    }
  }
  return true;
}

}  // namespace msa::train
