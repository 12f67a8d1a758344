#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <new>

#include "core/error.h"
#include "tokenizer/utf8.h"

namespace msa {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
// Backtracking allowed for one match: a constant, and for each byte of text what a linear pattern such as \s+(?!\S)
// needs. Patterns of exponential cost stop here.
constexpr size_t kMatchSteps = 1'000'000;
constexpr size_t kMatchStepsPerByte = 16;

[[noreturn]] void refuse(const std::string& what, const std::string& where) {
  throw Error(what, where, "use a pattern that PCRE2 and Oniguruma read alike");
}

/// PCRE2's \s takes U+180E for a space, Oniguruma's does not: name the property. Other letters after a backslash pass
/// only where both engines agree on them.
std::string translate(const std::string& pattern, const std::string& where) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      out += pattern[i];
      continue;
    }
    const char c = pattern[++i];
    if (c == 's') {
      out += "\\p{White_Space}";
    } else if (c == 'S') {
      out += "\\P{White_Space}";
    } else if (std::isalpha(static_cast<unsigned char>(c)) &&
               std::string_view("dDpPrntfaexAz").find(c) == std::string_view::npos) {
      refuse(std::string("the escape \\") + c + " is not supported in a tokenizer's pattern", where);
    } else {
      out += '\\';
      out += c;
    }
  }
  return out;
}

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  const int n = pcre2_get_error_message(code, text, sizeof text);
  return n < 0 ? "PCRE2 error " + std::to_string(code) : std::string(reinterpret_cast<char*>(text));
}

// Oniguruma's ^ and $ stand at line ends too.
constexpr unsigned kRegexOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;

}  // namespace

Regex::Regex(const std::string& pattern, const std::string& where)
    : Regex(translate(pattern, where), where, kRegexOptions) {}

Regex Regex::literal(const std::string& text, const std::string& where) {
  return Regex(text, where, PCRE2_UTF | PCRE2_LITERAL);
}

Regex::Regex(const std::string& pattern, const std::string& where, unsigned options) : where_(where) {
  if (pattern.empty()) refuse("the pattern is empty", where);
  if (pattern.size() > kMaxPatternBytes) {
    refuse("the pattern has " + std::to_string(pattern.size()) + " bytes; at most " + std::to_string(kMaxPatternBytes) +
               " are read",
           where);
  }
  int code = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &code,
                                       &offset, context.get());
  if (compiled == nullptr) {
    refuse("the pattern does not compile at byte " + std::to_string(offset) + ": " + pcre2_message(code), where);
  }
  code_.reset(compiled, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // where there is no JIT, matching interprets
}

RegexMatcher::RegexMatcher(const Regex& regex) : regex_(regex) {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  if (data == nullptr) throw std::bad_alloc();
  data_.reset(data, [](void* p) { pcre2_match_data_free(static_cast<pcre2_match_data*>(p)); });
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  if (context == nullptr) throw std::bad_alloc();
  context_.reset(context, [](void* p) { pcre2_match_context_free(static_cast<pcre2_match_context*>(p)); });
}

int RegexMatcher::match(std::string_view text, size_t from) {
  auto* code = static_cast<pcre2_code*>(regex_.code_.get());
  auto* data = static_cast<pcre2_match_data*>(data_.get());
  auto* context = static_cast<pcre2_match_context*>(context_.get());
  const size_t limit = kMatchSteps + kMatchStepsPerByte * text.size();
  pcre2_set_match_limit(context, static_cast<uint32_t>(std::min<size_t>(limit, UINT32_MAX)));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const int found = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, data, context);
  if (found != PCRE2_ERROR_JIT_STACKLIMIT) return found;
  // The interpreter keeps its state on the heap, within PCRE2's heap limit.
  return pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, context);
}

bool RegexMatcher::next(std::string_view text, Cursor& cursor, TextRange& match_range) {
  while (cursor.from <= text.size()) {
    const int found = match(text, cursor.from);
    if (found == PCRE2_ERROR_NOMATCH) return false;
    if (found < 0) {
      throw Error("the pattern fails on a text of " + std::to_string(text.size()) + " bytes: " + pcre2_message(found),
                  regex_.where_, "use a pattern that needs less backtracking");
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(static_cast<pcre2_match_data*>(data_.get()));
    match_range = {bounds[0], bounds[1]};
    if (match_range.end < match_range.begin || match_range.begin < cursor.from) {
      throw Error("the pattern matches backwards", regex_.where_, "use a pattern without \\K");
    }
    if (match_range.begin == match_range.end && match_range.end == cursor.last_end) {
      const std::string_view rest = text.substr(cursor.from);
      cursor.from += rest.empty() ? 1 : static_cast<size_t>(utf8_step(rest).bytes);
      continue;
    }
    cursor.from = cursor.last_end = match_range.end;
    return true;
  }
  return false;
}

}  // namespace msa
