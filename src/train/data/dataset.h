// Data sets tokenised once, as flat arrays.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/thread_pool.h"
#include "io/beir.h"
#include "tokenizer/tokenizer.h"

namespace msa::train {

/// Arrays of tokens behind one another.
struct TokenArrays {
  std::vector<int32_t> tokens;     // [starts.back()]
  std::vector<int64_t> starts{0};  // [size() + 1]

  int64_t size() const { return static_cast<int64_t>(starts.size()) - 1; }
  std::span<const int32_t> operator[](int64_t i) const {
    const auto at = static_cast<size_t>(i);
    return std::span(tokens).subspan(static_cast<size_t>(starts[at]), static_cast<size_t>(starts[at + 1] - starts[at]));
  }
  void append(std::span<const int32_t> more) {
    tokens.insert(tokens.end(), more.begin(), more.end());
    starts.push_back(static_cast<int64_t>(tokens.size()));
  }
};

/// `n` texts in parallel, each cut to `max_tokens`.
TokenArrays tokenise(int64_t n, const std::function<std::string(int64_t)>& text, const Tokenizer& tokenizer,
                     int64_t max_tokens, ThreadPool& pool);

struct Dataset {
  std::string folder;
  TokenArrays documents;                  // the text as the engine adds it: title, line end, text
  std::vector<std::string> document_ids;  // [documents]
  std::vector<uint64_t> text_hashes;      // [documents] equal for the same words, whatever the title
  std::vector<int32_t> articles;          // [documents] equal for neighbours in the corpus under one title
  std::vector<BeirQuestion> questions;    // gold, hops and possible are indices of documents
  std::vector<int32_t> asked;             // questions by gold document: asked[asked_starts[d] … asked_starts[d + 1])
  std::vector<int64_t> asked_starts;      // [documents + 1]

  std::span<const int32_t> questions_of(int32_t document) const {
    const auto at = static_cast<size_t>(document);
    return std::span(asked).subspan(static_cast<size_t>(asked_starts[at]),
                                    static_cast<size_t>(asked_starts[at + 1] - asked_starts[at]));
  }
};

struct DocumentForm {
  int64_t max_tokens = 1024;  // longer ones are cut
  bool titles = true;         // false: the text alone, where there is one
};

/// Throws Error naming the set when a document gives no tokens at all.
Dataset make_dataset(BeirSet&& set, const Tokenizer& tokenizer, const DocumentForm& form, ThreadPool& pool);

}  // namespace msa::train
