// Filters as SQL. Only the shape of a filter becomes SQL text; every name and value in it is a bound parameter.
#include <string>
#include <vector>

#include "bank/document_store_sqlite.h"
#include "bank/filter.h"

namespace msa {
namespace {

using Value = Filter::Value;

const char* symbol(Filter::Operator op) {
  switch (op) {
    case Filter::Operator::kEqual: return " = ";
    case Filter::Operator::kLess: return " < ";
    case Filter::Operator::kLessEqual: return " <= ";
    case Filter::Operator::kGreater: return " > ";
    case Filter::Operator::kGreaterEqual: return " >= ";
  }
  return "";
}

// A time in the metadata, else when the version was added; in the bank's own notation either way.
constexpr const char* kTime =
    "coalesce(CASE WHEN json_type(d.metadata, '$.time') = 'text' AND json_extract(d.metadata, '$.time') "
    "GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' "
    "THEN strftime('%Y-%m-%dT%H:%M:%fZ', json_extract(d.metadata, '$.time')) END, c.time)";

class Condition {
 public:
  Condition(const DocumentStore& store, int first_parameter) : store_(store), next_(first_parameter) {}

  std::string of(const Filter& filter) {
    switch (filter.kind) {
      case Filter::Kind::kAll: return "1";
      case Filter::Kind::kNot: return "(NOT " + of(filter.children.front()) + ")";
      case Filter::Kind::kAnd:
      case Filter::Kind::kOr: {
        std::string text;
        for (const Filter& child : filter.children) {
          text += text.empty() ? "(" : filter.kind == Filter::Kind::kAnd ? " AND " : " OR ";
          text += of(child);
        }
        return text + ")";
      }
      case Filter::Kind::kCompare: return compare(filter);
    }
    return "0";
  }
  const std::vector<std::string>& parameters() const { return parameters_; }

 private:
  std::string bound(std::string value) {
    parameters_.push_back(std::move(value));
    return "?" + std::to_string(next_++);
  }

  std::string compare(const Filter& filter) {
    if (filter.field == "namespace") return column(filter, "d.namespace", Value::Type::kText);
    if (filter.field == "external_id") return column(filter, "d.external_id", Value::Type::kText);
    if (filter.field == "id") return column(filter, "d.id", Value::Type::kNumber);
    if (filter.field == "time") return column(filter, kTime, Value::Type::kText);
    return metadata(filter);
  }

  std::string column(const Filter& filter, const std::string& expression, Value::Type type) {
    std::string text;
    for (const Value& value : filter.values) {
      if (value.type != type) {
        throw Error("'" + filter.field + "' compares with " + (type == Value::Type::kText ? "'text'" : "a number"),
                    "filter", "for instance: namespace = 'a' and id < 100");
      }
      std::string operand = bound(filter.field == "time" ? store_.normal_time(value.text) : value.text);
      if (type == Value::Type::kNumber) operand = "CAST(" + operand + " AS NUMERIC)";
      text += (text.empty() ? "(" : " OR ") + expression + symbol(filter.op) + operand;
    }
    return text + ")";
  }

  /// Any scalar under the key, or any scalar element of a list under it.
  std::string metadata(const Filter& filter) {
    const std::string key = bound(filter.field == "tag" ? "tags" : filter.field);
    std::string scalar = "(", element = "(";
    for (const Value& value : filter.values) {
      const std::string operand = bound(value.text);
      scalar += (scalar.size() == 1 ? "" : " OR ") + json_value("f", filter.op, value, operand);
      element += (element.size() == 1 ? "" : " OR ") + json_value("e", filter.op, value, operand);
    }
    return "EXISTS(SELECT 1 FROM json_each(d.metadata) f WHERE f.key = " + key + " AND (" + scalar +
           ") OR (f.type = 'array' AND EXISTS(SELECT 1 FROM json_each(f.value) e WHERE " + element + ")))))";
  }

  static std::string json_value(const std::string& row, Filter::Operator op, const Value& value,
                                const std::string& operand) {
    if (value.type == Value::Type::kBool) {
      return "(" + row + ".type IN ('true', 'false') AND " + row + ".type" + symbol(op) + operand + ")";
    }
    const std::string is_scalar = "(" + row + ".type IN ('text', 'integer', 'real') AND ";
    if (value.type == Value::Type::kText) {
      return is_scalar + "CAST(" + row + ".value AS TEXT)" + symbol(op) + operand + ")";
    }
    // Beside a NUMERIC operand text that is a number compares as one; other text is greater than every number.
    return is_scalar + row + ".value <= CAST('9e999' AS NUMERIC) AND " + row + ".value" + symbol(op) + "CAST(" +
           operand + " AS NUMERIC))";
  }

  const DocumentStore& store_;
  int next_;
  std::vector<std::string> parameters_;
};

}  // namespace

std::vector<DocumentId> DocumentStore::matching(const Filter& filter, int64_t commit) const {
  constexpr int kFirst = 2;  // :at is the first parameter of the text
  Condition condition(*this, kFirst);
  const std::string where = condition.of(filter);
  Statement row = db_->prepare(std::string("SELECT d.id FROM ") + kDocumentsAt +
                               " d JOIN commits c ON c.number = d.created WHERE " + where);
  row.bind_named(":at", commit);
  int index = kFirst;
  for (const std::string& value : condition.parameters()) row.bind_at(index++, value);
  std::vector<DocumentId> ids;
  while (row.step()) ids.push_back(row.integer(0));
  return ids;
}

}  // namespace msa
