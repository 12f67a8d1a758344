// Words of a text: runs of letters, digits and underscores, lower-cased. Matches Python's \w+ and lower().
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace msa::train {

/// Calls sink(lower-cased word, number of characters) for each word of valid UTF-8, in order. The view is valid during
/// the call only.
void for_each_word(std::string_view text, const std::function<void(std::string_view word, int64_t characters)>& sink);

/// " the words of the text ", lower-cased, with one space around each; " " for a text without words.
std::string spaced_words(std::string_view text);

/// Whether the words of `inner` follow one another in `outer`; both as spaced_words gives them. Nothing contains the
/// empty sequence.
bool contains_words(std::string_view outer, std::string_view inner);

int64_t count_words(std::string_view text);

}  // namespace msa::train
