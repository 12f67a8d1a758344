#include "io/text.h"

namespace msa {

std::string printable(std::string_view bytes, size_t max_length) {
  std::string text;
  for (const char c : bytes.substr(0, max_length)) text += (c >= 0x20 && c < 0x7f) ? c : '?';
  if (bytes.size() > max_length) text += "…";
  return text;
}

std::string clean_lines(std::string text) {
  if (text.find_first_of(std::string_view("\r\0", 2)) == std::string::npos) return text;
  std::string clean;
  clean.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\0') {
      clean += "\uFFFD";
    } else if (text[i] != '\r') {
      clean += text[i];
    } else if (i + 1 == text.size() || text[i + 1] != '\n') {
      clean += '\n';
    }
  }
  return clean;
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos; }

}  // namespace msa
