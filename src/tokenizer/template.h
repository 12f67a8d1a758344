// Every prompt string of a model: msa_template.json beside it, or the public checkpoint's.
#pragma once
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace msa {

/// Tokens, and for each whether it routes.
struct Prompt {
  std::vector<int32_t> tokens;  // [n]
  std::vector<uint8_t> routed;  // [n] 0 or 1

  void append(const Prompt& more);
};

/// The file lists each prompt as pieces. A piece is tokenised by itself: literals with special tokens parsed; the value
/// of {question} never, so that no text injects control tokens; {text} is given as tokens. {id} may stand inside a
/// literal and becomes a decimal number. Only {question} in `query` and all of `fetched` route.
class PromptTemplate {
 public:
  /// Throw Error naming the field that is broken or does not fit the tokenizer.
  static PromptTemplate load(const std::string& path, const Tokenizer& tokenizer);
  static PromptTemplate from_json(std::string_view bytes, const std::string& where, const Tokenizer& tokenizer);
  /// For model directories without a file.
  static PromptTemplate public_default(const Tokenizer& tokenizer);
  static std::string_view public_default_json();

  Prompt head() const;
  Prompt document(int64_t id, std::span<const int32_t> text_tokens) const;
  Prompt query(std::string_view question) const;
  std::vector<int32_t> cite(int64_t id) const;
  Prompt fetched(int64_t id, std::span<const int32_t> text_tokens) const;
  Prompt final_question(std::string_view question) const;
  Prompt answer_prefix() const;
  /// Is a document worth citing? The question, the documents, the last of which is judged, and rerank_ask; what the
  /// model writes next is rerank.yes or rerank.no. Nothing routes.
  Prompt rerank_question(std::string_view question) const;
  Prompt rerank_document(std::span<const int32_t> text_tokens) const;
  Prompt rerank_ask(std::string_view question) const;
  const std::vector<int32_t>& end_of_retrieve() const { return end_of_retrieve_; }
  bool is_stop(int32_t token) const { return stop_.contains(token); }
  int32_t first_stop() const { return first_stop_; }  // as the file lists them: the one a model learns to write

  float prior_weight = 0;       // of the router's distribution when ids are decoded; 0: the model alone chooses
  float prior_temperature = 1;  // of the softmax over the router's document scores
  float late_temperature = 0;   // the prior adds late-interaction scores over this; 0: it does not
  float hop_mass = 0;           // a hop takes documents until their prior exceeds this; 0: the model says how many

  /// Candidates are read before one is cited: a pointwise reranker with the model's own weights (monoT5, Nogueira et
  /// al. 2020, arXiv 2003.06713). Without its prompts `yes` is negative.
  struct Rerank {
    int documents = 0;          // read in a hop, at most, by their prior; 0: none
    float weight = 1;           // of log p(yes) / p(no) beside the log of the prior
    float confident = 1;        // the best one's share of the result that leaves the others unread
    int32_t yes = -1, no = -1;  // the first tokens of both
  };
  Rerank rerank;

 private:
  enum class PieceKind : uint8_t { kLiteral, kId, kText, kQuestion };
  struct Piece {
    PieceKind kind = PieceKind::kLiteral;
    std::vector<int32_t> tokens;  // of a literal
    std::string before, after;    // of an id
  };
  struct Values {
    int64_t id = 0;
    std::span<const int32_t> text;
    std::string_view question;
  };
  class Reader;

  explicit PromptTemplate(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  Prompt fill(const std::vector<Piece>& pieces, const Values& values) const;
  Prompt unrouted(const std::vector<Piece>& pieces, const Values& values) const;

  Tokenizer tokenizer_;
  std::vector<Piece> head_, document_, query_, cite_, fetched_, final_, answer_prefix_;
  std::vector<Piece> rerank_question_, rerank_document_, rerank_ask_;
  std::vector<int32_t> end_of_retrieve_;
  std::set<int32_t> stop_;
  int32_t first_stop_ = -1;
};

}  // namespace msa
