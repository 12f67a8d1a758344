// Regular expressions of tokenizer files, run by PCRE2 with Unicode properties.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace msa {

/// A compiled pattern; const and shared by threads. Tokenizer files are written for Oniguruma: constructs that mean
/// something else in PCRE2 are translated (\s, \S) or refused, never matched in another sense.
class Regex {
 public:
  /// `where` names the field of the pattern in errors.
  Regex(const std::string& pattern, const std::string& where);
  /// Matches exactly this text.
  static Regex literal(const std::string& text, const std::string& where);

 private:
  friend class RegexMatcher;
  Regex(const std::string& pattern, const std::string& where, unsigned options);

  std::shared_ptr<void> code_;  // pcre2_code_8
  std::string where_;
};

struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

/// The matches of one pattern in texts of valid UTF-8, one after the other. One thread; the Regex must outlive it.
class RegexMatcher {
 public:
  explicit RegexMatcher(const Regex& regex);

  /// Position inside one text, for next().
  struct Cursor {
    size_t from = 0;
    size_t last_end = static_cast<size_t>(-1);
  };
  /// The next match in `text`; matches do not overlap, and an empty one never follows another directly. False: no more.
  /// Throws Error when the pattern needs too much backtracking for this text.
  bool next(std::string_view text, Cursor& cursor, TextRange& match);

 private:
  int match(std::string_view text, size_t from);

  const Regex& regex_;
  std::shared_ptr<void> data_;     // pcre2_match_data_8
  std::shared_ptr<void> context_;  // pcre2_match_context_8
};

}  // namespace msa
