#include "io/beir.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "io/text.h"

namespace msa {
namespace {

using nlohmann::json;

constexpr const char* kDocumentFix = R"(each line must be an object like {"_id": "d1", "title": "…", "text": "…"})";
constexpr const char* kQueryFix = R"(each line must be an object like {"_id": "q1", "text": "…", "answers": ["…"]})";
constexpr const char* kJudgementFix = "columns query-id, corpus-id, score, separated by tabs, named in the first line";

/// One line as a JSON object whose fields are asked for by type; null counts as missing.
class Line {
 public:
  Line(std::string_view line, const std::string& where, const char* fix) : where_(where), fix_(fix) {
    try {
      object_ = json::parse(line);
    } catch (const json::exception& error) {
      refuse(std::string("broken JSON: ") + error.what());
    }
    if (!object_.is_object()) refuse("no JSON object");
  }

  std::string id() const {
    const auto id = object_.find("_id");
    if (id != object_.end() && id->is_number_integer()) return id->dump();
    std::string text = optional_string("_id");
    if (text.empty()) refuse("\"_id\" is missing or empty");
    return text;
  }

  std::string need_string(const char* name) const {
    const json* value = find(name);
    if (value == nullptr) refuse("\"" + std::string(name) + "\" is missing");
    return string_of(*value, name);
  }

  std::string optional_string(const char* name) const {
    const json* value = find(name);
    return value == nullptr ? std::string() : string_of(*value, name);
  }

  std::vector<std::string> strings(const char* name) const {
    std::vector<std::string> out;
    const json* list = find(name);
    if (list == nullptr) return out;
    if (!list->is_array()) refuse("\"" + std::string(name) + "\" is no array");
    for (const json& item : *list) {
      out.push_back(string_of(item, name));
      if (is_blank(out.back())) refuse("\"" + std::string(name) + "\" holds an empty string");
    }
    return out;
  }

  [[noreturn]] void refuse(const std::string& what) const { throw Error(what, where_, fix_); }

 private:
  const json* find(const char* name) const {
    const auto field = object_.find(name);
    return field == object_.end() || field->is_null() ? nullptr : &*field;
  }

  std::string string_of(const json& value, const char* name) const {
    if (!value.is_string()) refuse("\"" + std::string(name) + "\" is no string");
    return value.get<std::string>();
  }

  json object_;
  const std::string& where_;
  const char* fix_;
};

std::string_view without_bom(std::string_view line, int64_t number) {
  constexpr std::string_view kBom = "\xEF\xBB\xBF";
  if (number == 1 && line.starts_with(kBom)) line.remove_prefix(kBom.size());
  return line;
}

BeirJudgement parse_judgement(std::string_view line, const std::string& where) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const size_t first = line.find('\t');
  const size_t second = first == std::string_view::npos ? first : line.find('\t', first + 1);
  if (second == std::string_view::npos || line.find('\t', second + 1) != std::string_view::npos) {
    const auto tabs = std::count(line.begin(), line.end(), '\t');
    throw Error(std::to_string(tabs + 1) + " columns instead of 3", where, kJudgementFix);
  }
  BeirJudgement judgement{line.substr(0, first), line.substr(first + 1, second - first - 1), 0};
  if (judgement.query_id.empty() || judgement.document_id.empty()) throw Error("an empty id", where, kJudgementFix);
  const std::string_view score = line.substr(second + 1);
  const auto [end, code] = std::from_chars(score.data(), score.data() + score.size(), judgement.score);
  if (code != std::errc() || end != score.data() + score.size()) {
    throw Error("the score '" + printable(score) + "' is no whole number", where, kJudgementFix);
  }
  return judgement;
}

}  // namespace

BeirDocument parse_beir_document(std::string_view line, const std::string& where) {
  const Line object(line, where, kDocumentFix);
  BeirDocument document;
  document.id = object.id();
  document.text = clean_lines(object.need_string("text"));
  document.title = clean_lines(object.optional_string("title"));
  return document;
}

BeirQuery parse_beir_query(std::string_view line, const std::string& where) {
  const Line object(line, where, kQueryFix);
  BeirQuery query;
  query.id = object.id();
  query.text = clean_lines(object.need_string("text"));
  if (is_blank(query.text)) object.refuse("\"text\" is empty");
  query.type = object.optional_string("type");
  query.answers = object.strings("answers");
  query.hops = object.strings("hops");
  return query;
}

BeirSummary read_beir(const std::string& path, bool zstd, int64_t max_line_bytes,
                      const std::function<bool(BeirDocument&&)>& sink) {
  LineReader lines(path, zstd, max_line_bytes);
  BeirSummary summary;
  std::string_view line;
  while (lines.next(line)) {
    line = without_bom(line, lines.line_number());
    if (is_blank(line)) continue;
    BeirDocument document = parse_beir_document(line, path + ":" + std::to_string(lines.line_number()));
    ++summary.documents;
    if (is_blank(document.title) && is_blank(document.text)) {
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

void for_each_line(const std::string& path, int64_t max_line_bytes,
                   const std::function<void(std::string_view line, const std::string& where)>& sink) {
  LineReader lines(path, path.ends_with(".zst"), max_line_bytes);
  std::string_view line;
  while (lines.next(line)) {
    line = without_bom(line, lines.line_number());
    if (!is_blank(line)) sink(line, path + ":" + std::to_string(lines.line_number()));
  }
}

void read_judgements(const std::string& path,
                     const std::function<void(const BeirJudgement&, const std::string& where)>& sink) {
  bool is_header = true;
  for_each_line(path, kMaxBeirLineBytes, [&](std::string_view line, const std::string& where) {
    if (std::exchange(is_header, false)) {
      if (line.starts_with("query-id\t")) return;
      throw Error("the header line is missing", where, kJudgementFix);
    }
    sink(parse_judgement(line, where), where);
  });
}

}  // namespace msa
