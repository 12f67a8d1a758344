// A tokenizer.json small enough to break on purpose: all bytes, a few merges, a few special tokens.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace msa::testing {

/// The byte-level alphabet's letter of a byte, as UTF-8.
inline std::string letter(int byte) {
  int code = 256;
  for (int b = 0; b <= byte; ++b) {
    const bool plain = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    if (b == byte && plain) code = b;
    if (b < byte && !plain) ++code;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

/// Ids 0–255 are the bytes; then "ab", "abc", "bc", " t", " th", " the"; then the special tokens and "<tool>".
inline nlohmann::json tiny_tokenizer() {
  using Json = nlohmann::json;
  Json vocab = Json::object();
  for (int b = 0; b < 256; ++b) vocab[letter(b)] = b;
  const std::string space = letter(' ');
  Json merges = Json::array();
  const auto merge = [&](const std::string& left, const std::string& right) {
    vocab[left + right] = vocab.size();
    merges.push_back(left + " " + right);
  };
  merge("b", "c");
  merge("a", "b");
  merge("ab", "c");
  merge(space, "t");
  merge(space + "t", "h");
  merge(space + "th", "e");
  Json added = Json::array();
  for (const char* token : {"<|im_start|>", "<|im_end|>", "<file_sep>", "<issue_closed>", "<tool>"}) {
    added.push_back({{"id", 262 + added.size()},
                     {"content", token},
                     {"special", token != std::string("<tool>")},
                     {"normalized", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"single_word", false}});
  }
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"unk_token", nullptr}, {"vocab", vocab}, {"merges", merges}}}};
}

}  // namespace msa::testing
