#include "train/make_data/sentence.h"

#include <unicase.h>
#include <unictype.h>
#include <unistr.h>

#include <algorithm>

namespace msa::train {
namespace {

constexpr std::string_view kAbbreviations[] = {
    "Mr",  "Mrs", "Ms",  "Dr",  "St",  "Jr",   "Sr",   "No",   "Prof", "Gen", "Lt",  "Col", "Sgt", "Capt", "Rev",
    "Hon", "Gov", "Sen", "Rep", "Inc", "Ltd",  "Co",   "Corp", "vs",   "ca",  "c",   "b",   "d",   "r",    "approx",
    "etc", "Mt",  "Ft",  "Ave", "Rd",  "Blvd", "Bros", "Dept", "Univ", "Vol", "vol", "pp",  "no",  "feat", "Fr",
    "Jan", "Feb", "Mar", "Apr", "Jun", "Jul",  "Aug",  "Sept", "Oct",  "Nov", "Dec", "est", "lit", "née",  "Pte"};
constexpr std::string_view kMonths[] = {"January", "February", "March",     "April",   "May",      "June",
                                        "July",    "August",   "September", "October", "November", "December"};
constexpr std::string_view kNumberWords[] = {"two",   "three", "four", "five",   "six",   "seven",
                                             "eight", "nine",  "ten",  "eleven", "twelve"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_day(std::string_view word) {
  return !word.empty() && word.size() <= 2 && std::all_of(word.begin(), word.end(), is_digit);
}

/// The word right before position `end`.
std::string_view word_before(std::string_view text, size_t end) {
  size_t begin = end;
  while (begin > 0 && text[begin - 1] != ' ' && text[begin - 1] != '(') --begin;
  return text.substr(begin, end - begin);
}

/// Whether the mark at `at` ends a sentence, the rest of the text being known.
bool ends_sentence(std::string_view text, size_t at) {
  size_t next = at + 1;
  while (next < text.size() && (text[next] == '"' || text[next] == '\'' || text[next] == ')')) ++next;
  if (next == text.size()) return true;
  if (text[next] != ' ' && text[next] != '\n') return false;
  while (next < text.size() && (text[next] == ' ' || text[next] == '\n')) ++next;
  if (next == text.size()) return true;
  const bool begins = is_capitalised(text.substr(next)) || is_digit(text[next]) || text[next] == '"';
  if (!begins || text[at] != '.') return begins;
  const std::string_view word = word_before(text, at);
  const bool initial = word.size() == 1 && is_capitalised(word);
  const bool dotted = word.find('.') != std::string_view::npos;  // U.S, a.m
  return !initial && !dotted && !is_one_of(word, kAbbreviations);
}

}  // namespace

std::vector<std::string_view> split_sentences(std::string_view text) {
  std::vector<std::string_view> sentences;
  const auto add = [&](size_t begin, size_t end) {
    while (begin < end && (text[begin] == ' ' || text[begin] == '\n')) ++begin;
    while (begin < end && (text[end - 1] == ' ' || text[end - 1] == '\n')) --end;
    if (begin < end) sentences.push_back(text.substr(begin, end - begin));
  };
  size_t begin = 0;
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '(' || c == '[') ++depth;
    if ((c == ')' || c == ']') && depth > 0) --depth;
    if (depth > 0 || (c != '.' && c != '!' && c != '?') || !ends_sentence(text, i)) continue;
    size_t end = i + 1;
    while (end < text.size() && (text[end] == '"' || text[end] == '\'')) ++end;
    add(begin, end);
    begin = end;
  }
  add(begin, text.size());
  return sentences;
}

std::string without_brackets(std::string_view text) {
  std::string out;
  int depth = 0;
  for (const char c : text) {
    if (c == '(' || c == '[') {
      if (depth++ == 0 && out.ends_with(' ')) out.pop_back();
    } else if ((c == ')' || c == ']') && depth > 0) {
      --depth;
    } else if (depth == 0) {
      out += c;
    }
  }
  return out;
}

Tokens tokenise(std::string_view sentence) {
  Tokens tokens;
  for (size_t i = 0; i < sentence.size();) {
    const size_t end = std::min(sentence.find_first_of(" \n\t", i), sentence.size());
    std::string_view word = sentence.substr(i, end - i);
    i = end + 1;
    if (word.empty()) continue;
    char after = 0;
    if (word.back() == ',' || word.back() == ';' || word.back() == ':') {
      after = word.back();
      word.remove_suffix(1);
    }
    if (!word.empty()) {
      tokens.push_back({std::string(word), after});
    } else if (!tokens.empty()) {
      tokens.back().after = after;
    }
  }
  if (!tokens.empty()) {
    std::string& last = tokens.back().text;
    if (last.size() > 1 && (last.back() == '.' || last.back() == '!' || last.back() == '?')) last.pop_back();
    tokens.back().after = 0;
  }
  return tokens;
}

std::string join(const Tokens& tokens, size_t begin, size_t end) {
  std::string out;
  for (size_t i = begin; i < std::min(end, tokens.size()); ++i) {
    out += tokens[i].text;
    if (i + 1 == end) break;
    if (tokens[i].after != 0) out += tokens[i].after;
    out += ' ';
  }
  if (out.ends_with(' ')) out.pop_back();
  return out;
}

bool is_capitalised(std::string_view word) {
  if (word.empty()) return false;
  if (static_cast<unsigned char>(word[0]) < 0x80) return word[0] >= 'A' && word[0] <= 'Z';
  ucs4_t c = 0;
  u8_mbtouc(&c, reinterpret_cast<const uint8_t*>(word.data()), word.size());
  return uc_is_general_category_withtable(c, UC_CATEGORY_MASK_Lu | UC_CATEGORY_MASK_Lt);
}

bool is_lower_word(std::string_view word) {
  return !word.empty() && word[0] != '-' &&
         std::all_of(word.begin(), word.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '-'; });
}

bool is_year(std::string_view word) {
  return word.size() == 4 && std::all_of(word.begin(), word.end(), is_digit) &&
         (word[0] == '1' || word.starts_with("20"));
}

bool is_number(std::string_view word) {
  if (is_one_of(word, kNumberWords)) return true;
  return !word.empty() && is_digit(word.front()) && is_digit(word.back()) &&
         std::all_of(word.begin(), word.end(), [](char c) { return is_digit(c) || c == ',' || c == '.'; });
}

size_t date_length(const Tokens& tokens, size_t at) {
  const auto text = [&](size_t i) { return i < tokens.size() ? std::string_view(tokens[i].text) : std::string_view(); };
  if (is_one_of(text(at), kMonths)) {
    if (is_day(text(at + 1)) && is_year(text(at + 2))) return 3;
    return is_year(text(at + 1)) && tokens[at].after == 0 ? 2 : 0;
  }
  return is_day(text(at)) && is_one_of(text(at + 1), kMonths) && is_year(text(at + 2)) ? 3 : 0;
}

}  // namespace msa::train
