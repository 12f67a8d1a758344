#include "cli/beir.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "cli/decode_text.h"
#include "core/error.h"

namespace msa {
namespace {

using nlohmann::json;

constexpr const char* kFix = R"(each line must be an object like {"_id": "d1", "title": "…", "text": "…"})";

/// A string field; null counts as missing.
const std::string* string_field(const json& object, const char* name, const std::string& where) {
  const auto field = object.find(name);
  if (field == object.end() || field->is_null()) return nullptr;
  if (!field->is_string()) throw Error(std::string("\"") + name + "\" is no string", where, kFix);
  return field->get_ptr<const std::string*>();
}

std::string id_field(const json& object, const std::string& where) {
  const auto id = object.find("_id");
  if (id != object.end() && id->is_number_integer()) return id->dump();
  const std::string* text = string_field(object, "_id", where);
  if (text == nullptr || text->empty()) throw Error("\"_id\" is missing or empty", where, kFix);
  return *text;
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

}  // namespace

BeirDocument parse_beir_line(std::string_view line, const std::string& where) {
  json object;
  try {
    object = json::parse(line);
  } catch (const json::exception& error) {
    throw Error(std::string("broken JSON: ") + error.what(), where, kFix);
  }
  if (!object.is_object()) throw Error("no JSON object", where, kFix);
  BeirDocument document;
  document.id = id_field(object, where);
  const std::string* text = string_field(object, "text", where);
  if (text == nullptr) throw Error("\"text\" is missing", where, kFix);
  const std::string* title = string_field(object, "title", where);
  document.text = clean_lines(title == nullptr || title->empty() ? *text : *title + "\n" + *text);
  return document;
}

BeirSummary read_beir(const std::string& path, bool zstd, int64_t max_line_bytes,
                      const std::function<bool(BeirDocument&&)>& sink) {
  LineReader lines(path, zstd, max_line_bytes);
  BeirSummary summary;
  std::string_view line;
  while (lines.next(line)) {
    constexpr std::string_view kBom = "\xEF\xBB\xBF";
    if (lines.line_number() == 1 && line.starts_with(kBom)) line.remove_prefix(kBom.size());
    if (is_blank(line)) continue;
    BeirDocument document = parse_beir_line(line, path + ":" + std::to_string(lines.line_number()));
    ++summary.documents;
    if (is_blank(document.text)) {
      if (summary.empty++ == 0) summary.first_empty_line = lines.line_number();
      continue;
    }
    if (!sink(std::move(document))) {
      summary.stopped = true;
      break;
    }
  }
  return summary;
}

}  // namespace msa
