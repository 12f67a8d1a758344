#include "cli/html_text.h"

#include <libxml/HTMLparser.h>
#include <libxml/parserInternals.h>
#include <strings.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

#include "cli/decode_text.h"
#include "core/error.h"
#include "io/text.h"

namespace msa {
namespace {

constexpr std::string_view kDropped[] = {"script", "style", "noscript", "template", "svg", "iframe", "object"};
constexpr std::string_view kParagraphs[] = {
    "p",          "h1", "h2",      "h3",      "h4",   "h5",  "h6",    "pre",    "ul",     "ol",    "dl",   "table",
    "blockquote", "hr", "section", "article", "main", "nav", "title", "header", "footer", "aside", "form", "figure"};
constexpr std::string_view kLines[] = {"div",     "li",       "dt",      "dd",      "tr",      "br",
                                       "address", "fieldset", "legend",  "option",  "caption", "figcaption",
                                       "center",  "body",     "details", "summary", "dir",     "menu"};
constexpr std::string_view kCells[] = {"td", "th"};

template <size_t N>
bool is_one_of(const std::string_view (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

/// Text between block elements, its white space collapsed unless preformatted.
class TextCollector {
 public:
  void start(std::string_view name, const xmlChar** attributes) {
    if (dropped_depth_ > 0 || is_one_of(kDropped, name) || is_hidden(attributes)) {
      ++dropped_depth_;
      return;
    }
    break_before(name);
    if (name == "pre" || name == "textarea") ++preformatted_depth_;
  }

  void end(std::string_view name) {
    if (dropped_depth_ > 0) {
      --dropped_depth_;
      return;
    }
    break_before(name);
    if ((name == "pre" || name == "textarea") && preformatted_depth_ > 0) --preformatted_depth_;
  }

  void characters(std::string_view piece) {
    if (dropped_depth_ > 0) return;
    for (const char c : piece) {
      if (c == '\n' && preformatted_depth_ > 0) {
        ++breaks_;
      } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f') {
        ++spaces_;
      } else {
        flush_space();
        text_ += c;
      }
    }
  }

  std::string take() {
    if (!text_.empty()) text_ += '\n';
    constexpr std::string_view kNoBreakSpace = "\xC2\xA0";
    std::string plain;
    size_t from = 0;
    for (size_t at = 0; (at = text_.find(kNoBreakSpace, from)) != std::string::npos; from = at + kNoBreakSpace.size()) {
      plain.append(text_, from, at - from).append(1, ' ');
    }
    return plain.append(text_, from);
  }

 private:
  static bool is_hidden(const xmlChar** attributes) {
    for (; attributes != nullptr && attributes[0] != nullptr; attributes += 2) {
      if (strcasecmp(reinterpret_cast<const char*>(attributes[0]), "hidden") == 0) return true;
    }
    return false;
  }

  void break_before(std::string_view name) {
    const int wanted = is_one_of(kParagraphs, name) ? 2 : is_one_of(kLines, name) ? 1 : 0;
    breaks_ = std::max(breaks_, wanted);
    if (is_one_of(kCells, name)) ++spaces_;
  }

  void flush_space() {
    if (!text_.empty()) {
      if (breaks_ > 0) text_.append(static_cast<size_t>(std::min(breaks_, 2)), '\n');
      if (preformatted_depth_ > 0) {
        text_.append(static_cast<size_t>(spaces_), ' ');
      } else if (breaks_ == 0 && spaces_ > 0) {
        text_ += ' ';
      }
    }
    breaks_ = 0;
    spaces_ = 0;
  }

  std::string text_;
  int breaks_ = 0;  // asked for since the last character
  int64_t spaces_ = 0;
  int dropped_depth_ = 0;  // open elements from the outermost dropped one inwards
  int preformatted_depth_ = 0;
};

TextCollector& collector(void* user) { return *static_cast<TextCollector*>(user); }
std::string_view view(const xmlChar* name) { return reinterpret_cast<const char*>(name); }

void on_start(void* user, const xmlChar* name, const xmlChar** attributes) {
  collector(user).start(view(name), attributes);
}
void on_end(void* user, const xmlChar* name) { collector(user).end(view(name)); }
void on_characters(void* user, const xmlChar* text, int n) {
  collector(user).characters({reinterpret_cast<const char*>(text), static_cast<size_t>(n)});
}

/// Events instead of a tree: no limit on depth or on the length of a text node, and memory for the text only.
htmlSAXHandler text_events() {
  htmlSAXHandler events{};
  events.startElement = on_start;
  events.endElement = on_end;
  events.characters = on_characters;
  events.ignorableWhitespace = on_characters;
  events.cdataBlock = on_characters;
  return events;
}

struct FreeParser {
  void operator()(htmlParserCtxt* parser) const { htmlFreeParserCtxt(parser); }
};

/// libxml2 tells of bytes outside the declared charset only through this thread-wide handler, and then reads no
/// further.
class CharsetErrors {
 public:
  CharsetErrors() { xmlSetStructuredErrorFunc(this, on_error); }
  ~CharsetErrors() { xmlSetStructuredErrorFunc(nullptr, nullptr); }
  CharsetErrors(const CharsetErrors&) = delete;
  CharsetErrors& operator=(const CharsetErrors&) = delete;
  bool any() const { return any_; }

 private:
  static void on_error(void* self, xmlErrorPtr error) {
    if (error->code == XML_I18N_CONV_FAILED) static_cast<CharsetErrors*>(self)->any_ = true;
  }
  bool any_ = false;
};

struct Parsed {
  std::string text;
  std::string broken_charset;  // the charset that the bytes are not in; then the text is cut short
};

Parsed parse(const std::string& html, bool is_utf8, const std::string& where) {
  const std::unique_ptr<htmlParserCtxt, FreeParser> parser(
      htmlCreateMemoryParserCtxt(html.data(), static_cast<int>(html.size())));
  if (!parser) throw Error("out of memory for the HTML parser", where);
  const CharsetErrors errors;
  TextCollector text;
  *parser->sax = text_events();
  parser->userData = &text;
  htmlCtxtUseOptions(parser.get(), HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING | HTML_PARSE_NONET |
                                       (is_utf8 ? HTML_PARSE_IGNORE_ENC : 0));
  if (is_utf8) xmlSwitchEncoding(parser.get(), XML_CHAR_ENCODING_UTF8);
  htmlParseDocument(parser.get());
  Parsed parsed{text.take(), ""};
  if (errors.any() && parser->input != nullptr && parser->input->encoding != nullptr) {
    parsed.broken_charset = view(parser->input->encoding);
  }
  return parsed;
}

}  // namespace

std::string html_to_text(std::string html, const std::string& where) {
  html = unicode_from_bom(std::move(html), where);
  refuse_binary(html, where);
  // Without a declaration libxml2 takes Latin-1; bytes that are UTF-8 but for a few accidents are no Latin-1.
  Utf8Repair repaired = replace_invalid_utf8(html);
  const bool is_utf8 = repaired.non_ascii_bytes > 0 && repaired.invalid_bytes * 10 < repaired.non_ascii_bytes;
  if (is_utf8) html = std::move(repaired.text);
  if (html.empty()) return html;
  Parsed parsed = parse(html, is_utf8, where);
  if (!parsed.broken_charset.empty()) {
    html = convert_with_repair(html, parsed.broken_charset.c_str(), where);
    parsed = parse(html, /*is_utf8=*/true, where);
  }
  return clean_lines(replace_invalid_utf8(std::move(parsed.text)).text);
}

}  // namespace msa
