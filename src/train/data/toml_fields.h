// Typed access to the fields of a TOML table; every failure names file, line and the field by its whole path.
#pragma once
#include <toml++/toml.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "io/text.h"

namespace msa::train {

/// A view of a table: `file` and `path` ("data.sets[0]") only name it.
class TomlFields {
 public:
  TomlFields(const toml::table& table, std::string file, std::string path)
      : table_(table), file_(std::move(file)), path_(std::move(path)) {}

  std::string where() const { return place(table_, path_); }
  std::string where(std::string_view key) const {
    const toml::node* node = table_.get(key);
    return place(node == nullptr ? table_ : *node, path_.empty() ? std::string(key) : path_ + "." + std::string(key));
  }
  bool has(std::string_view key) const { return table_.contains(key); }
  [[noreturn]] void refuse(std::string_view key, const std::string& what, const std::string& fix = "") const {
    throw Error(what, where(key), fix);
  }

  /// Throws where the table holds another key: a misspelt field never passes in silence.
  void allow_only(std::initializer_list<std::string_view> keys) const {
    std::string known;
    for (const std::string_view key : keys) known += (known.empty() ? "" : ", ") + std::string(key);
    for (const auto& [key, value] : table_) {
      if (std::find(keys.begin(), keys.end(), key.str()) == keys.end()) {
        refuse(key.str(), "unknown field '" + printable(key.str()) + "'", "known here: " + known);
      }
    }
  }

  /// The default where the field is missing; Error where it is of another type or outside [least, most].
  int64_t integer(std::string_view key, int64_t otherwise, int64_t least, int64_t most) const {
    return has(key) ? integer_of(need(key), key, least, most) : otherwise;
  }
  double number(std::string_view key, double otherwise, double least, double most) const {
    return has(key) ? number_of(need(key), key, least, most) : otherwise;
  }
  bool flag(std::string_view key, bool otherwise) const {
    if (!has(key)) return otherwise;
    if (!need(key).is_boolean()) refuse(key, "must be true or false");
    return need(key).as_boolean()->get();
  }
  std::string string(std::string_view key, std::string otherwise) const {
    return has(key) ? string_of(need(key), key) : otherwise;
  }

  int64_t need_integer(std::string_view key, int64_t least, int64_t most) const {
    return integer_of(need(key), key, least, most);
  }
  double need_number(std::string_view key, double least, double most) const {
    return number_of(need(key), key, least, most);
  }
  std::string need_string(std::string_view key) const { return string_of(need(key), key); }
  const toml::node& need(std::string_view key) const {
    const toml::node* node = table_.get(key);
    if (node == nullptr) refuse(key, "the field is missing");
    return *node;
  }

  /// Empty where the field is missing.
  std::vector<std::string> strings(std::string_view key) const {
    return list<std::string>(key, [&](const toml::node& node) { return string_of(node, key); });
  }
  std::vector<int64_t> integers(std::string_view key, int64_t least, int64_t most) const {
    return list<int64_t>(key, [&](const toml::node& node) { return integer_of(node, key, least, most); });
  }
  std::vector<double> numbers(std::string_view key, double least, double most) const {
    return list<double>(key, [&](const toml::node& node) { return number_of(node, key, least, most); });
  }
  std::vector<TomlFields> tables(std::string_view key) const {
    int index = 0;
    return list<TomlFields>(key, [&](const toml::node& node) {
      if (!node.is_table()) refuse(key, "must hold tables");
      return TomlFields(*node.as_table(), file_, path_ + "." + std::string(key) + "[" + std::to_string(index++) + "]");
    });
  }
  TomlFields need_table(std::string_view key) const {
    if (!need(key).is_table()) refuse(key, "must be a table");
    return TomlFields(*need(key).as_table(), file_, path_.empty() ? std::string(key) : path_ + "." + std::string(key));
  }

 private:
  std::string place(const toml::node& node, const std::string& path) const {
    const auto line = node.source().begin.line;
    return file_ + (line > 0 ? ":" + std::to_string(line) : "") + ": " + path;
  }

  int64_t integer_of(const toml::node& node, std::string_view key, int64_t least, int64_t most) const {
    if (!node.is_integer()) refuse(key, "must be a whole number");
    const int64_t value = node.as_integer()->get();
    if (value < least || value > most) {
      refuse(key, "must lie between " + std::to_string(least) + " and " + std::to_string(most));
    }
    return value;
  }
  double number_of(const toml::node& node, std::string_view key, double least, double most) const {
    if (!node.is_number()) refuse(key, "must be a number");
    const double value = *node.value<double>();
    if (!(value >= least && value <= most)) {
      char range[80];
      std::snprintf(range, sizeof(range), "must lie between %g and %g", least, most);
      refuse(key, range);
    }
    return value;
  }
  std::string string_of(const toml::node& node, std::string_view key) const {
    if (!node.is_string()) refuse(key, "must be a string");
    return node.as_string()->get();
  }
  template <class T, class Read>
  std::vector<T> list(std::string_view key, const Read& read) const {
    std::vector<T> out;
    if (!has(key)) return out;
    if (!need(key).is_array()) refuse(key, "must be an array");
    for (const toml::node& node : *need(key).as_array()) out.push_back(read(node));
    return out;
  }

  const toml::table& table_;
  std::string file_;
  std::string path_;
};

/// The whole file. Throws Error with the line of a syntax error.
toml::table read_toml(const std::string& path);

}  // namespace msa::train
