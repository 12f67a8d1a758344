#include "train/make_data/table.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/json_file.h"

namespace msa::train {
namespace {

using nlohmann::json;

constexpr const char* kFix =
    R"(each line must be like {"_id": "t1", "title": "…", "header": ["…"], "rows": [[{"text": "…", "links": ["d1"]}]]})";

const json& field(const json& object, const char* name, const std::string& where) {
  if (!object.is_object()) throw Error("no JSON object", where, kFix);
  const auto found = object.find(name);
  if (found == object.end()) throw Error("\"" + std::string(name) + "\" is missing", where, kFix);
  return *found;
}

std::string text(const json& value, const char* name, const std::string& where) {
  if (!value.is_string()) throw Error("\"" + std::string(name) + "\" is no string", where, kFix);
  return value.get<std::string>();
}

const json& list(const json& value, const char* name, const std::string& where) {
  if (!value.is_array()) throw Error("\"" + std::string(name) + "\" is no array", where, kFix);
  return value;
}

Cell parse_cell(const json& value, const std::string& where, const FindDocument& find) {
  Cell cell;
  cell.text = text(field(value, "text", where), "text", where);
  for (const json& link : list(field(value, "links", where), "links", where)) {
    const int32_t document = find(text(link, "links", where));
    if (document >= 0) cell.documents.push_back(document);
  }
  return cell;
}

}  // namespace

Table parse_table(std::string_view line, const std::string& where, const FindDocument& find) {
  const json object = parse_json(line, where);
  Table table;
  table.id = text(field(object, "_id", where), "_id", where);
  table.title = text(field(object, "title", where), "title", where);
  const auto section = object.find("section_title");
  if (section != object.end() && !section->is_null()) table.section = text(*section, "section_title", where);
  for (const json& name : list(field(object, "header", where), "header", where)) {
    table.header.push_back(text(name, "header", where));
  }
  for (const json& row : list(field(object, "rows", where), "rows", where)) {
    std::vector<Cell> cells;
    for (const json& cell : list(row, "rows", where)) cells.push_back(parse_cell(cell, where, find));
    if (cells.size() != table.header.size()) {
      throw Error("row " + std::to_string(table.rows.size()) + " has " + std::to_string(cells.size()) + " cells, not " +
                      std::to_string(table.header.size()) + " as the header",
                  where, kFix);
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

}  // namespace msa::train
