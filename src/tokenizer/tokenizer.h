// Byte-level BPE as tokenizer.json or a GGUF file describes it; same tokens as Hugging Face tokenizers.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace msa {

struct TokenizerSpec;

/// Const after loading: threads share it. Copies are cheap and share the tables.
class Tokenizer {
 public:
  /// Throw Error naming the field that is broken or that this engine does not support.
  static Tokenizer from_json_file(const std::string& path);
  static Tokenizer from_json(std::string_view bytes, const std::string& where);
  static Tokenizer from_gguf(const std::string& path);
  explicit Tokenizer(const TokenizerSpec& spec);

  /// Tokens of a text, nothing added at its ends. Broken UTF-8 is first replaced as Python's
  /// bytes.decode("utf-8", errors="replace") does. Special tokens are recognised only with parse_special; without it no
  /// text gives one, unless it stands for a single byte. Throws Error above 1 GiB.
  std::vector<int32_t> encode(std::string_view utf8, bool parse_special = false) const;

  /// Valid UTF-8; what the tokens leave broken becomes U+FFFD. Ids outside the vocabulary are passed over.
  std::string decode(std::span<const int32_t> tokens, bool skip_special = true) const;
  /// The bytes of one token, perhaps a part of a character; empty for ids outside the vocabulary.
  std::string_view token_bytes(int32_t id) const;

  /// Id of a special token by its text, or -1.
  int32_t special_id(std::string_view token) const;
  bool is_special(int32_t id) const;
  int32_t vocab_size() const;  // highest id + 1

 private:
  struct Tables;
  class Encoder;
  std::shared_ptr<const Tables> tables_;
};

/// Text as tokens arrive, whole characters only. All pieces together equal Tokenizer::decode of all tokens.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  /// The characters that are complete now; perhaps none.
  std::string add(int32_t token);
  /// What was left incomplete, as U+FFFD. The decoder is fresh again.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::string pending_;  // the beginning of one character
};

}  // namespace msa
