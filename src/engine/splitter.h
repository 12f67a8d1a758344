// Long texts cut into parts that fit a token budget.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace msa {

class Tokenizer;

struct TextPart {
  std::string text;
  int index = 0;  // of `count`
  int count = 1;
};

using TokenCounter = std::function<int(std::string_view)>;

/// The whole text as one part when it has at most `max_tokens` tokens. Else parts of at most that many, in order,
/// neighbours sharing about `overlap_tokens` (at most half of max_tokens). A part ends at the best boundary in its last
/// third: paragraph, else sentence, line, word, else between two characters. White space at the cuts is dropped, and a
/// text of nothing else gives no part. Time is linear in the text. A single character of more than `max_tokens` tokens
/// is a part of its own. Throws Error when max_tokens is not positive or overlap_tokens negative.
std::vector<TextPart> split_text(const TokenCounter& count_tokens, std::string_view text, int max_tokens,
                                 int overlap_tokens);
std::vector<TextPart> split_text(const Tokenizer& tokenizer, std::string_view text, int max_tokens, int overlap_tokens);

}  // namespace msa
