// What a tokenizer file says, whatever its format; Tokenizer is built from it.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace msa {

/// A token found in the text before any splitting.
struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;     // a control token: only text that is parsed for special tokens can hold it
  bool normalized = false;  // found in the normalised text, not in the original
};

/// One pre-tokeniser: a text is cut at the borders of the pattern's matches.
struct SplitRule {
  std::string pattern;
  bool literal = false;      // text, not a regular expression
  bool keep_matches = true;  // false: matches are dropped
  bool keep_others = true;   // false: what lies between matches is dropped
  std::string where;         // the field, for errors
};

struct TokenizerSpec {
  std::string where;                                        // the file, for errors
  std::vector<std::string> tokens;                          // by id, in the byte-level alphabet; "" where there is none
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::vector<AddedToken> added;
  std::vector<SplitRule> splits;
  bool nfc = false;            // canonical composition first
  bool ignore_merges = false;  // a word that is a token as it stands needs no merges
  bool has_unknown_token = false;
};

inline constexpr int64_t kMaxTokens = int64_t{1} << 20;

// Word patterns of known models.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                                                  R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kDigitPattern = R"(\p{N})";

/// tokenizer.json of Hugging Face tokenizers. Throws Error on whatever this engine would read in another sense.
TokenizerSpec tokenizer_spec_from_json(std::string_view bytes, const std::string& where);
/// The fields tokenizer.ggml.* of a GGUF file.
TokenizerSpec tokenizer_spec_from_gguf(const std::string& path);

}  // namespace msa
