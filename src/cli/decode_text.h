// Bytes of unknown origin made into clean UTF-8.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace msa {

struct Utf8Repair {
  std::string text;             // valid UTF-8
  int64_t invalid_bytes = 0;    // replaced, each ill-formed sequence by one U+FFFD
  int64_t non_ascii_bytes = 0;  // in well-formed sequences
};
Utf8Repair replace_invalid_utf8(std::string bytes);

/// UTF-8, or UTF-16/32 with a byte order mark, to UTF-8 without one. Ill-formed UTF-16/32 throws Error.
std::string unicode_from_bom(std::string bytes, const std::string& where);

/// From a charset that iconv knows to UTF-8; bytes that are not of it become U+FFFD. Throws Error on another charset.
std::string convert_with_repair(std::string_view bytes, const char* charset, const std::string& where);

/// Throws Error when the bytes hold a NUL.
void refuse_binary(std::string_view bytes, const std::string& where);

struct DecodedText {
  std::string text;
  int64_t invalid_bytes = 0;  // replaced by U+FFFD; at most 3 % of the whole
};
/// All of the above, for plain text, its line ends made LF. Throws Error on what is no text.
DecodedText decode_text(std::string bytes, const std::string& where);

}  // namespace msa
