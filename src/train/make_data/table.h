// Tables whose cells link to documents: one JSON object a line,
// {"_id", "title", "section_title", "header": [str], "rows": [[{"text", "links": [document id]}]]}.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace msa::train {

struct Cell {
  std::string text;
  std::vector<int32_t> documents;
};

struct Table {
  std::string id;
  std::string title;
  std::string section;  // perhaps empty
  std::vector<std::string> header;
  std::vector<std::vector<Cell>> rows;  // each as long as the header
};

/// Index of a document by its id; -1: there is none.
using FindDocument = std::function<int32_t(const std::string& id)>;

/// Throws Error at `where` for a line that is no such object. Links to documents that are not there are dropped.
Table parse_table(std::string_view line, const std::string& where, const FindDocument& find);

}  // namespace msa::train
