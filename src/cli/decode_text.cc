#include "cli/decode_text.h"

#include <iconv.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "io/text.h"
#include "tokenizer/utf8.h"

namespace msa {
namespace {

constexpr double kMaxInvalidShare = 0.03;

struct Bom {
  std::string_view mark;
  const char* encoding;
};
// UTF-32LE first: its mark begins with that of UTF-16LE.
constexpr Bom kBoms[] = {{{"\xFF\xFE\0\0", 4}, "UTF-32LE"},
                         {{"\0\0\xFE\xFF", 4}, "UTF-32BE"},
                         {{"\xFF\xFE", 2}, "UTF-16LE"},
                         {{"\xFE\xFF", 2}, "UTF-16BE"},
                         {{"\xEF\xBB\xBF", 3}, "UTF-8"}};

class Converter {
 public:
  Converter(const char* charset, const std::string& where) : handle_(iconv_open("UTF-8", charset)) {
    if (handle_ == reinterpret_cast<iconv_t>(-1)) {  // NOLINT(performance-no-int-to-ptr): the value POSIX names
      throw Error("charset " + std::string(charset) + " is unknown to this system", where, "convert the file to UTF-8");
    }
  }
  ~Converter() { iconv_close(handle_); }
  Converter(const Converter&) = delete;
  Converter& operator=(const Converter&) = delete;

  /// Appends to `text` what can be converted and returns the bytes left: none, or some that begin ill-formed.
  std::string_view convert(std::string_view bytes, std::string& text) {
    char block[4096];
    char* in = const_cast<char*>(bytes.data());
    size_t in_left = bytes.size();
    size_t status = 0;
    do {
      char* out = block;
      size_t out_left = sizeof(block);
      status = iconv(handle_, &in, &in_left, &out, &out_left);
      text.append(block, sizeof(block) - out_left);
    } while (status == static_cast<size_t>(-1) && errno == E2BIG);
    return {in, in_left};
  }

 private:
  iconv_t handle_;
};

}  // namespace

Utf8Repair replace_invalid_utf8(std::string bytes) {
  Utf8Repair result;
  const std::string_view view = bytes;
  size_t good_from = 0;  // bytes [good_from, i) are well-formed and not copied yet
  for (size_t i = 0; i < view.size();) {
    if (static_cast<unsigned char>(view[i]) < 0x80) {
      ++i;
      continue;
    }
    const Utf8Step step = utf8_step(view.substr(i));
    if (step.valid) {
      result.non_ascii_bytes += step.bytes;
    } else {
      result.text.append(view, good_from, i - good_from).append(kReplacementCharacter);
      result.invalid_bytes += step.bytes;
      good_from = i + static_cast<size_t>(step.bytes);
    }
    i += static_cast<size_t>(step.bytes);
  }
  if (result.invalid_bytes == 0) {
    result.text = std::move(bytes);
  } else {
    result.text.append(bytes, good_from);
  }
  return result;
}

std::string convert_with_repair(std::string_view bytes, const char* charset, const std::string& where) {
  Converter converter(charset, where);
  std::string text;
  for (bytes = converter.convert(bytes, text); !bytes.empty(); bytes = converter.convert(bytes, text)) {
    text += kReplacementCharacter;
    bytes.remove_prefix(1);
  }
  return text;
}

std::string unicode_from_bom(std::string bytes, const std::string& where) {
  for (const Bom& bom : kBoms) {
    if (!bytes.starts_with(bom.mark)) continue;
    bytes.erase(0, bom.mark.size());
    if (std::strcmp(bom.encoding, "UTF-8") == 0) return bytes;
    std::string text;
    const size_t left = Converter(bom.encoding, where).convert(bytes, text).size();
    if (left == 0) return text;
    throw Error(
        "ill-formed " + std::string(bom.encoding) + " at byte " + std::to_string(bom.mark.size() + bytes.size() - left),
        where, "convert the file to UTF-8");
  }
  return bytes;
}

void refuse_binary(std::string_view bytes, const std::string& where) {
  const size_t nul = bytes.find('\0');
  if (nul == std::string_view::npos) return;
  throw Error("a binary file, not text (NUL at byte " + std::to_string(nul) + ")", where,
              "give .txt, .md, .html, .pdf, .jsonl or .jsonl.zst; export other formats to one of these");
}

DecodedText decode_text(std::string bytes, const std::string& where) {
  bytes = unicode_from_bom(std::move(bytes), where);
  refuse_binary(bytes, where);
  const size_t size = bytes.size();
  Utf8Repair repaired = replace_invalid_utf8(std::move(bytes));
  const double share = size == 0 ? 0 : static_cast<double>(repaired.invalid_bytes) / static_cast<double>(size);
  if (share > kMaxInvalidShare) {
    throw Error("not UTF-8 text: " + std::to_string(repaired.invalid_bytes) + " of " + std::to_string(size) +
                    " bytes are invalid",
                where, "convert it, for example: iconv -f ISO-8859-1 -t UTF-8");
  }
  return {clean_lines(std::move(repaired.text)), repaired.invalid_bytes};
}

}  // namespace msa
