// Filter expressions over documents: namespace = 'a' and time >= '2026-01-01' and tag in ('x', 'y').
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace msa {

/// A parsed filter: what to compare, never SQL. Grammar (keywords in any case):
///   or-terms of and-terms of [not] ( … ) or comparisons
///   comparison: field = | != | < | <= | > | >= value,  field [not] in (value, …)
///   field: a name, or "any name" in double quotes;  value: 'text' ('' is a quote), a number, true, false
/// Fields: namespace, external_id, id, time (metadata "time", else when it was added), tag (of metadata "tags"), any
/// other key of the metadata. A list compares as any of its elements. An absent field compares false, so != is true.
struct Filter {
  enum class Kind { kAll, kAnd, kOr, kNot, kCompare };
  enum class Operator { kEqual, kLess, kLessEqual, kGreater, kGreaterEqual };
  struct Value {
    enum class Type { kText, kNumber, kBool };
    Type type = Type::kText;
    std::string text;  // as written, without the quotes
  };

  Kind kind = Kind::kAll;
  std::vector<Filter> children;  // kAnd, kOr: two or more; kNot: one
  std::string field;             // kCompare
  Operator op = Operator::kEqual;
  std::vector<Value> values;  // kCompare: holds if it holds for any of them

  /// Throws Error (where = "filter") with the place of the first mistake. Blank text permits everything.
  static Filter parse(std::string_view text);
};

}  // namespace msa
