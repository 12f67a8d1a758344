// One training sample: the prompt that the engine's Generator builds at that point, and what the model is to write.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"
#include "train/batch.h"

namespace msa::train {

/// As Batch holds it. The template head is not part of it. The first token is never predicted.
struct Sample {
  SampleKind kind = SampleKind::kRetrieve;
  std::vector<int32_t> tokens;     // [n]
  std::vector<uint8_t> routed;     // [n]
  std::vector<uint8_t> predicted;  // [n]
};

struct CitedDocument {
  int64_t id = 0;
  std::span<const int32_t> text;
};
/// The documents of one hop: all of them are cited, then all of them are fetched.
using Hop = std::vector<CitedDocument>;

/// Const: threads share it.
class SampleBuilder {
 public:
  SampleBuilder(const Tokenizer& tokenizer, const PromptTemplate& prompts) : tokenizer_(tokenizer), prompts_(prompts) {}

  /// Query, earlier hops → the next hop's ids, then the first stop token: Generator ends a hop when the model writes
  /// anything that begins no id.
  Sample retrieve(std::string_view question, std::span<const Hop> earlier, std::span<const int64_t> targets) const;

  /// Query, all hops → End-of-Retrieve; the question once more; → answer prefix, answer, first stop token.
  Sample answer(std::string_view question, std::span<const Hop> hops, std::string_view answer) const;

  /// The same, but nothing routes: as the engine reads documents that the caller gives it.
  Sample read(std::string_view question, std::span<const Hop> hops, std::string_view answer) const;

  /// Is the document worth citing, once those of `earlier` are there? What would be yes or no is not part of it.
  Sample rerank(std::string_view question, std::span<const Hop> earlier, std::span<const int32_t> text) const;

  /// The query template with "[id]" as question → the first `count` tokens of the text, from its pooled content alone;
  /// the stop token too when they are all of it.
  Sample reconstruct(int64_t id, std::span<const int32_t> text, int64_t count) const;

  /// Plain text: nothing routes.
  Sample language(std::span<const int32_t> text) const;

 private:
  Sample ask(SampleKind kind, std::string_view question, std::span<const Hop> hops) const;

  Tokenizer tokenizer_;
  const PromptTemplate& prompts_;  // outlives the builder
};

/// Shortens the longest texts until all together have at most `budget` tokens. False, and nothing done, when one would
/// be left with fewer than `least`.
bool cut_texts(std::vector<Hop>& hops, int64_t budget, int64_t least);

}  // namespace msa::train
