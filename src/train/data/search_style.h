// Questions as people type them into a search box.
#pragma once
#include <string>
#include <string_view>

#include "train/data/random.h"

namespace msa::train {

/// The question in lower case (ASCII) without its closing mark. One in two loses some words, 5 to 35 % of them, and is
/// cut to 8 … 14 words in a row where more are left; never to fewer than three. A
/// question of marks alone stays as it is.
std::string search_style(std::string_view question, RandomStream& random);

/// The same without losing a word.
std::string all_words_in_search_style(std::string_view question);

}  // namespace msa::train
