// Sentences of English prose, and their words as written.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace msa::train {

/// Pieces of `text` that end at . ! or ?, without the white space between them. Does not split inside brackets, after
/// initials and after common abbreviations.
std::vector<std::string_view> split_sentences(std::string_view text);

/// Without (…) and […] and the space before them.
std::string without_brackets(std::string_view text);

struct Token {
  std::string text;
  char after = 0;  // , ; or : behind the word
};
using Tokens = std::vector<Token>;

/// Words between spaces. The mark that ends the sentence is dropped.
Tokens tokenise(std::string_view sentence);

/// Tokens [begin, end) as written; the mark behind the last one is dropped.
std::string join(const Tokens& tokens, size_t begin, size_t end);
inline std::string join(const Tokens& tokens) { return join(tokens, 0, tokens.size()); }

bool is_capitalised(std::string_view word);  // begins with an upper-case letter, not only of A to Z
bool is_lower_word(std::string_view word);   // a to z and hyphens only
bool is_year(std::string_view word);         // 1000 … 2099
bool is_number(std::string_view word);       // 14, 1,234, 3.5, two … twelve

/// Number of tokens of a date at `at`: "July 11, 1998", "11 July 1998" (3), "July 1998" (2); 0: none.
size_t date_length(const Tokens& tokens, size_t at);

/// Whether a sorted or short list of words holds this one.
template <class List>
bool is_one_of(std::string_view word, const List& list) {
  for (const auto& item : list) {
    if (word == item) return true;
  }
  return false;
}

}  // namespace msa::train
