#include "train/data/teacher.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "io/text.h"

namespace msa::train {
namespace {

constexpr const char* kFix = "write query-id, corpus-id, score separated by tabs, or a TREC run of six columns";

std::vector<std::string_view> split(std::string_view line, std::string_view separators) {
  std::vector<std::string_view> fields;
  const bool runs = separators.size() > 1;  // of white space count as one separator
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find_first_of(separators, begin), line.size());
    if (!runs || end > begin) fields.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return fields;
}

struct Row {
  int32_t question = 0;
  ScoredDocument scored;
};

class Parser {
 public:
  Parser(const Dataset& dataset, ScoreTable::Columns columns) : columns_(columns) {
    for (size_t i = 0; i < dataset.document_ids.size(); ++i) {
      documents_[dataset.document_ids[i]] = static_cast<int32_t>(i);
    }
    for (size_t i = 0; i < dataset.questions.size(); ++i) questions_[dataset.questions[i].id] = static_cast<int32_t>(i);
  }

  Row parse(std::string_view line, const std::string& where) const {
    std::vector<std::string_view> fields = split(line, line.find('\t') == std::string_view::npos ? " \t" : "\t");
    if (fields.size() == 6 && (fields[1] == "Q0" || fields[1] == "0")) {
      fields = {fields[0], fields[2], fields[4]};
    } else if (fields.size() == 2 && columns_ == ScoreTable::Columns::kScoresOptional) {
      fields.push_back("0");
    } else if (fields.size() != 3) {
      throw Error(std::to_string(fields.size()) + " columns", where, kFix);
    }
    return {index(questions_, fields[0], "question", where),
            {index(documents_, fields[1], "document", where), score(fields[2], where)}};
  }

 private:
  using Index = std::unordered_map<std::string_view, int32_t>;

  static int32_t index(const Index& ids, std::string_view id, const char* what, const std::string& where) {
    const auto it = ids.find(id);
    if (it != ids.end()) return it->second;
    throw Error("the set has no " + std::string(what) + " '" + printable(id) + "'", where,
                "use a file made from this very set");
  }

  static float score(std::string_view text, const std::string& where) {
    float value = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
      throw Error("the score '" + printable(text) + "' is no finite number", where, kFix);
    }
    return value;
  }

  ScoreTable::Columns columns_;
  Index documents_, questions_;
};

/// Throws when one question names a document twice.
void refuse_repetition(std::span<const ScoredDocument> rows, const Dataset& dataset, size_t question,
                       const std::string& path) {
  std::vector<int32_t> documents;
  for (const ScoredDocument& row : rows) documents.push_back(row.document);
  std::sort(documents.begin(), documents.end());
  const auto twice = std::adjacent_find(documents.begin(), documents.end());
  if (twice == documents.end()) return;
  throw Error("document '" + dataset.document_ids[static_cast<size_t>(*twice)] + "' stands twice under question '" +
                  dataset.questions[question].id + "'",
              path, "keep one line of each pair");
}

}  // namespace

ScoreTable ScoreTable::load(const std::string& path, const Dataset& dataset, Columns columns) {
  const Parser parser(dataset, columns);
  std::vector<Row> rows;
  bool first = true;
  for_each_line(path, kMaxBeirLineBytes, [&](std::string_view line, const std::string& where) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (std::exchange(first, false) && line.starts_with("query-id\t")) return;
    rows.push_back(parser.parse(line, where));
  });
  if (rows.empty()) throw Error("nothing in it", path, kFix);
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.question < b.question; });
  ScoreTable table;
  table.starts_.assign(dataset.questions.size() + 1, 0);
  for (const Row& row : rows) {
    table.rows_.push_back(row.scored);
    ++table.starts_[static_cast<size_t>(row.question) + 1];
  }
  for (size_t q = 0; q < dataset.questions.size(); ++q) {
    table.starts_[q + 1] += table.starts_[q];
    refuse_repetition(table.of(static_cast<int32_t>(q)), dataset, q, path);
  }
  return table;
}

}  // namespace msa::train
