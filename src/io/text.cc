#include "io/text.h"

namespace msa {

std::string printable(std::string_view bytes, size_t max_length) {
  std::string text;
  for (const char c : bytes.substr(0, max_length)) text += (c >= 0x20 && c < 0x7f) ? c : '?';
  if (bytes.size() > max_length) text += "…";
  return text;
}

}  // namespace msa
