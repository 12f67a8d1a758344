// Bytes of unknown origin inside messages.
#pragma once
#include <string>
#include <string_view>

namespace msa {

/// At most `max_length` characters of `bytes` as printable ASCII ('?' for the rest), with "…" where it was cut.
std::string printable(std::string_view bytes, size_t max_length = 100);

}  // namespace msa
