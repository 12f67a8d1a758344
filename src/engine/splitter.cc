#include "engine/splitter.h"

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "tokenizer/tokenizer.h"

namespace msa {
namespace {

// How good a cut in front of a unit is.
enum Boundary : uint8_t { kInside, kWord, kLine, kSentence, kParagraph };

/// A word with the white space in front of it (as byte-level tokenizers cut), or a piece of a long run.
struct Unit {
  size_t begin;  // bytes; a unit ends where the next one begins
  int tokens;
  Boundary before;
};

// Longer runs are cut so that no unit is expensive to count and none is much of a part.
constexpr size_t kMaxUnitBytes = 48;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

/// The last character boundary in (begin, end]; `end` itself in bytes that are no UTF-8.
size_t character_boundary(std::string_view text, size_t begin, size_t end) {
  if (end >= text.size()) return text.size();
  size_t at = end;
  while (at > begin && end - at < 4 && is_continuation(text[at])) --at;
  return at == begin || is_continuation(text[at]) ? end : at;
}

/// Whether text that ends here ends a sentence, closing quotes and brackets passed over.
bool ends_sentence(std::string_view text) {
  constexpr std::string_view kClosing[] = {"\"", "'", ")", "]", "\u201d", "\u2019", "\u00bb", "\u300d", "\uff09"};
  constexpr std::string_view kEnds[] = {".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f", "\u0964", "\u061f"};
  const auto ends_with = [&](std::string_view mark) { return text.ends_with(mark); };
  for (int i = 0; i < 3; ++i) {
    const auto closing = std::find_if(std::begin(kClosing), std::end(kClosing), ends_with);
    if (closing == std::end(kClosing)) break;
    text.remove_suffix(closing->size());
  }
  return std::any_of(std::begin(kEnds), std::end(kEnds), ends_with);
}

class Splitter {
 public:
  Splitter(const TokenCounter& count_tokens, std::string_view text, int max_tokens, int overlap_tokens)
      : count_tokens_(count_tokens), text_(text), max_tokens_(max_tokens), overlap_tokens_(overlap_tokens) {
    find_units();
  }

  int64_t total_tokens() const { return tokens_before_.back(); }

  std::vector<TextPart> split() {
    std::vector<TextPart> parts;
    const size_t n = units_.size();
    for (size_t begin = 0; begin < n;) {
      const size_t end = end_of_part(begin);
      const std::string_view part = trimmed(begin, end);
      if (!part.empty()) parts.push_back({std::string(part), static_cast<int>(parts.size()), 0});
      if (end == n) break;
      begin = begin_of_next(begin, end);
    }
    for (TextPart& part : parts) part.count = static_cast<int>(parts.size());
    return parts;
  }

 private:
  size_t unit_end(size_t i) const { return i + 1 < units_.size() ? units_[i + 1].begin : text_.size(); }
  int64_t tokens(size_t begin, size_t end) const { return tokens_before_[end] - tokens_before_[begin]; }

  void find_units() {
    for (size_t at = 0; at < text_.size();) at = add_word(at);
    tokens_before_.reserve(units_.size() + 1);
    tokens_before_.push_back(0);
    for (const Unit& unit : units_) tokens_before_.push_back(tokens_before_.back() + unit.tokens);
  }

  /// White space at `begin` and the word behind it, as one or more units. Returns where the next word begins.
  size_t add_word(size_t begin) {
    size_t word = begin;
    int line_ends = 0;
    while (word < text_.size() && is_space(text_[word])) line_ends += text_[word++] == '\n';
    size_t end = word;
    while (end < text_.size() && !is_space(text_[end])) ++end;
    Boundary before = line_ends >= 2                          ? kParagraph
                      : ends_sentence(text_.substr(0, begin)) ? kSentence
                      : line_ends == 1                        ? kLine
                                                              : kWord;
    for (size_t at = begin; at < end;) {
      const size_t next = end - at <= kMaxUnitBytes ? end : cut_long_run(at);
      add_unit(at, next, before);
      before = ends_sentence(text_.substr(0, next)) ? kSentence : kInside;
      at = next;
    }
    return end;
  }

  /// Scripts without spaces: behind the first sentence end within reach, else anywhere between two characters.
  size_t cut_long_run(size_t begin) const {
    const size_t limit = character_boundary(text_, begin, begin + kMaxUnitBytes);
    for (size_t at = begin + 1; at < limit; ++at) {
      const bool is_character_end = !is_continuation(text_[at]) && is_continuation(text_[at - 1]);
      if (is_character_end && ends_sentence(text_.substr(begin, at - begin))) return at;
    }
    return limit;
  }

  void add_unit(size_t begin, size_t end, Boundary before) {
    const int n = count_cached(text_.substr(begin, end - begin));
    // A unit that is much of a part would leave no choice of where to cut: go by characters.
    if (n <= std::max(1, max_tokens_ / 2) || end - begin == 1) {
      units_.push_back({begin, n, before});
      return;
    }
    for (size_t at = begin; at < end;) {
      size_t next = at + 1;
      while (next < end && next - at < 4 && is_continuation(text_[next])) ++next;
      units_.push_back({at, count_cached(text_.substr(at, next - at)), at == begin ? before : kInside});
      at = next;
    }
  }

  int count_cached(std::string_view piece) {
    const auto [entry, is_new] = counts_.try_emplace(piece, 0);
    if (is_new) entry->second = count_tokens_(piece);
    return entry->second;
  }

  /// The units of [begin, end) without white space at the ends.
  std::string_view trimmed(size_t begin, size_t end) const {
    size_t from = units_[begin].begin;
    size_t to = unit_end(end - 1);
    while (from < to && is_space(text_[from])) ++from;
    while (to > from && is_space(text_[to - 1])) --to;
    return text_.substr(from, to - from);
  }

  /// Unit after the last one of the part that begins at `begin`; at least one unit is taken.
  size_t end_of_part(size_t begin) const {
    const size_t n = units_.size();
    int64_t budget = max_tokens_;
    for (;;) {
      const auto first_over =
          std::upper_bound(tokens_before_.begin(), tokens_before_.end(), tokens_before_[begin] + budget);
      const size_t fitting = std::max(static_cast<size_t>(first_over - tokens_before_.begin()) - 1, begin + 1);
      const size_t end = fitting >= n ? n : best_cut(begin, fitting, budget);
      if (end == begin + 1) return end;
      // The pieces' sum is an estimate; the part itself decides.
      const int exact = count_tokens_(trimmed(begin, end));
      if (exact <= max_tokens_) return end;
      budget = std::min(tokens(begin, end) - 1, tokens(begin, end) * max_tokens_ / exact);
    }
  }

  /// The best boundary in the last third of [begin, fitting], the latest of equals.
  size_t best_cut(size_t begin, size_t fitting, int64_t budget) const {
    size_t best = fitting;
    for (size_t i = fitting; i > begin && tokens(begin, i) * 3 >= budget * 2; --i) {
      if (units_[i].before > units_[best].before) best = i;
    }
    return best;
  }

  /// Goes back from `end` by about the overlap, to the best boundary in the earlier half of that way.
  size_t begin_of_next(size_t begin, size_t end) const {
    // At least half of a part is new, so the whole stays linear.
    const int64_t overlap = std::min<int64_t>(overlap_tokens_, tokens(begin, end) / 2);
    size_t best = end;
    for (size_t i = end; i > begin + 1 && tokens(i - 1, end) <= overlap;) {
      --i;
      if (tokens(i, end) * 2 < overlap || best == end || units_[i].before >= units_[best].before) best = i;
    }
    return best;
  }

  const TokenCounter& count_tokens_;
  std::string_view text_;
  int max_tokens_;
  int overlap_tokens_;
  std::vector<Unit> units_;
  std::vector<int64_t> tokens_before_;                // [units + 1], summed
  std::unordered_map<std::string_view, int> counts_;  // natural text repeats its words: most counts are looked up
};

bool is_blank(std::string_view text) { return std::all_of(text.begin(), text.end(), is_space); }

}  // namespace

std::vector<TextPart> split_text(const TokenCounter& count_tokens, std::string_view text, int max_tokens,
                                 int overlap_tokens) {
  if (max_tokens < 1) throw Error("must be positive", "maximal tokens of a part", "give for example 512");
  if (overlap_tokens < 0) throw Error("must not be negative", "overlap of parts", "give for example 64");
  if (is_blank(text)) return {};
  Splitter splitter(count_tokens, text, max_tokens, overlap_tokens);
  // The sum over words is a little above the truth; only near the limit is the whole text counted.
  if (splitter.total_tokens() <= 2 * int64_t{max_tokens} && count_tokens(text) <= max_tokens) {
    return {{std::string(text), 0, 1}};
  }
  return splitter.split();
}

std::vector<TextPart> split_text(const Tokenizer& tokenizer, std::string_view text, int max_tokens,
                                 int overlap_tokens) {
  return split_text([&](std::string_view piece) { return static_cast<int>(tokenizer.encode(piece).size()); }, text,
                    max_tokens, overlap_tokens);
}

}  // namespace msa
