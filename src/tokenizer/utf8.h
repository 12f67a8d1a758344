// UTF-8: one character at a time, repair of broken bytes, canonical composition.
#pragma once
#include <string>
#include <string_view>

namespace msa {

struct Utf8Step {
  int bytes = 0;           // to move forward; at least 1
  bool valid = false;      // the bytes are one whole character
  bool truncated = false;  // not valid, but more bytes after the end of the text could make it so
};

/// The character at the front of a text that is not empty. Where it is broken, `bytes` covers the maximal subpart of an
/// ill-formed sequence (Unicode 15, section 3.9), as Python's bytes.decode("utf-8", errors="replace") counts them.
Utf8Step utf8_step(std::string_view text);

bool is_valid_utf8(std::string_view text);

/// Each maximal subpart of an ill-formed sequence becomes one U+FFFD; valid text stays as it is.
std::string replace_broken_utf8(std::string_view text);

/// Canonical composition (NFC) of valid UTF-8.
std::string compose_nfc(std::string_view text);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace msa
