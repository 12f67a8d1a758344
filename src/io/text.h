// Text of unknown origin.
#pragma once
#include <string>
#include <string_view>

namespace msa {

/// At most `max_length` characters of `bytes` as printable ASCII ('?' for the rest), with "…" where it was cut.
std::string printable(std::string_view bytes, size_t max_length = 100);

/// CRLF and CR become LF, NUL becomes U+FFFD.
std::string clean_lines(std::string text);

/// Nothing but white space.
bool is_blank(std::string_view text);

}  // namespace msa
