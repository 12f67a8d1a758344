#include "eval/answer_metrics.h"

#include <unicase.h>
#include <unictype.h>
#include <unistr.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "tokenizer/utf8.h"

namespace msa::eval {
namespace {

constexpr std::string_view kPunctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

template <class Unit>
using Allocated = std::unique_ptr<Unit, decltype(&std::free)>;

/// Full case mapping, as Python's str.lower().
std::u32string lower_case(std::string_view text) {
  const std::string valid = replace_broken_utf8(text);
  if (valid.empty()) return {};
  size_t n8 = 0, n32 = 0;
  const Allocated<uint8_t> lower(
      u8_tolower(reinterpret_cast<const uint8_t*>(valid.data()), valid.size(), nullptr, nullptr, nullptr, &n8),
      &std::free);
  MSA_CHECK(lower != nullptr);
  const Allocated<uint32_t> wide(u8_to_u32(lower.get(), n8, nullptr, &n32), &std::free);
  MSA_CHECK(wide != nullptr);
  return {wide.get(), wide.get() + n32};
}

bool is_space(char32_t c) { return uc_is_property_white_space(c) || (c >= 0x1c && c <= 0x1f); }

/// What \w means in Python; the underscore is gone with the punctuation.
bool is_word(char32_t c) { return uc_is_general_category_withtable(c, UC_CATEGORY_MASK_L | UC_CATEGORY_MASK_N); }

bool is_article(std::u32string_view word) { return word == U"a" || word == U"an" || word == U"the"; }

void append_utf8(std::string& out, char32_t c) {
  uint8_t bytes[6];
  const int n = u8_uctomb(bytes, c, sizeof bytes);
  MSA_CHECK(n > 0);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
}

std::map<std::string, int> word_counts(const std::string& normalised) {
  std::map<std::string, int> counts;
  for (size_t at = 0; at < normalised.size();) {
    const size_t end = std::min(normalised.find(' ', at), normalised.size());
    ++counts[normalised.substr(at, end - at)];
    at = end + 1;
  }
  return counts;
}

double f1_of(const std::map<std::string, int>& prediction, const std::map<std::string, int>& answer) {
  int common = 0, predicted = 0, wanted = 0;
  for (const auto& [word, count] : prediction) {
    predicted += count;
    if (const auto found = answer.find(word); found != answer.end()) common += std::min(count, found->second);
  }
  for (const auto& [word, count] : answer) wanted += count;
  if (common == 0) return 0;
  const double precision = static_cast<double>(common) / predicted;
  const double recall = static_cast<double>(common) / wanted;
  return 2 * precision * recall / (precision + recall);
}

bool holds_words(const std::string& normalised, const std::string& answer) {
  return !answer.empty() && (" " + normalised + " ").find(" " + answer + " ") != std::string::npos;
}

}  // namespace

std::string normalise_answer(std::string_view text) {
  std::u32string kept;
  for (const char32_t c : lower_case(text)) {
    if (c >= 0x80 || kPunctuation.find(static_cast<char>(c)) == std::string_view::npos) kept += c;
  }
  std::string out;
  bool space = false;  // owed before the next character
  const auto append = [&](std::u32string_view piece) {
    if (space && !out.empty()) out += ' ';
    space = false;
    for (const char32_t c : piece) append_utf8(out, c);
  };
  for (size_t at = 0; at < kept.size();) {
    size_t end = at;
    while (end < kept.size() && is_word(kept[end])) ++end;
    const auto word = std::u32string_view(kept).substr(at, end - at);
    if (word.empty()) {
      end = at + 1;
      if (is_space(kept[at]))
        space = true;
      else
        append(std::u32string_view(kept).substr(at, 1));
    } else if (is_article(word)) {
      space = true;
    } else {
      append(word);
    }
    at = end;
  }
  return out;
}

AnswerScores score_answer(std::string_view prediction, std::span<const std::string> answers) {
  const std::string predicted = normalise_answer(prediction);
  const auto predicted_words = word_counts(predicted);
  AnswerScores best;
  for (const std::string& answer : answers) {
    const std::string wanted = normalise_answer(answer);
    if (wanted == predicted) best.exact_match = 1;
    best.f1 = std::max(best.f1, f1_of(predicted_words, word_counts(wanted)));
    if (holds_words(predicted, wanted)) best.answer_in_text = 1;
  }
  return best;
}

double answer_in_text(std::string_view text, std::span<const std::string> answers) {
  const std::string normalised = normalise_answer(text);
  return std::any_of(answers.begin(), answers.end(),
                     [&](const std::string& answer) { return holds_words(normalised, normalise_answer(answer)); });
}

}  // namespace msa::eval
