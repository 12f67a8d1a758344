#include "train/data/words.h"

#include <unicase.h>
#include <unictype.h>
#include <unistr.h>

namespace msa::train {
namespace {

bool is_ascii_word(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_word(ucs4_t c) {
  return uc_is_general_category_withtable(c, UC_CATEGORY_MASK_L) ||
         uc_is_general_category_withtable(c, UC_CATEGORY_MASK_N);
}

void append_lower(std::string& out, ucs4_t c) {
  uint8_t bytes[6];
  const int n = u8_uctomb(bytes, uc_tolower(c), sizeof(bytes));
  if (n > 0) out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
}

}  // namespace

void for_each_word(std::string_view text, const std::function<void(std::string_view, int64_t)>& sink) {
  std::string word;
  int64_t characters = 0;
  const auto flush = [&] {
    if (characters > 0) sink(word, characters);
    word.clear();
    characters = 0;
  };
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      ++i;
      if (is_ascii_word(byte)) {
        word += static_cast<char>(byte >= 'A' && byte <= 'Z' ? byte + 32 : byte);
        ++characters;
      } else {
        flush();
      }
      continue;
    }
    ucs4_t c = 0;
    const int n = u8_mbtouc(&c, reinterpret_cast<const uint8_t*>(text.data()) + i, text.size() - i);
    i += static_cast<size_t>(n);
    if (is_word(c)) {
      append_lower(word, c);
      ++characters;
    } else {
      flush();
    }
  }
  flush();
}

std::string spaced_words(std::string_view text) {
  std::string out = " ";
  out.reserve(text.size() + 2);
  for_each_word(text, [&](std::string_view word, int64_t) { out.append(word) += ' '; });
  return out;
}

bool contains_words(std::string_view outer, std::string_view inner) {
  return inner.size() > 1 && outer.find(inner) != std::string_view::npos;
}

int64_t count_words(std::string_view text) {
  int64_t n = 0;
  for_each_word(text, [&](std::string_view, int64_t) { ++n; });
  return n;
}

}  // namespace msa::train
