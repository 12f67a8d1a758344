// Bodies of requests: parsed within bounds, every field checked by name, type and range.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace msa::server {

using Json = nlohmann::ordered_json;

/// The object that a body holds. Throws HttpError (400) for anything else: no JSON, bytes that are no UTF-8, more than
/// 64 levels.
Json parse_object(std::string_view body);

/// As text for a reply; bytes that are no UTF-8 become U+FFFD.
std::string dump(const Json& value);

/// One object of a request. What has the wrong type or range throws HttpError (400) with the field's path; null counts
/// as not there.
class Fields {
 public:
  explicit Fields(const Json& object, std::string path = {}) : object_(object), path_(std::move(path)) {}

  bool has(const char* name) const;
  std::string path(const char* name) const { return path_.empty() ? name : path_ + "." + name; }

  std::optional<std::string> text(const char* name) const;
  std::string need_text(const char* name) const;
  std::optional<int64_t> integer(const char* name, int64_t least, int64_t most) const;
  std::optional<double> number(const char* name, double least, double most) const;
  std::optional<bool> boolean(const char* name) const;
  /// One text or several; none where it is not there.
  std::vector<std::string> texts(const char* name, size_t most) const;
  /// Of an object, or null.
  const Json* object(const char* name) const;
  const Json* array(const char* name) const;

  /// Every other field is an error: a request never means more than what is done.
  void allow_only(std::initializer_list<const char*> names) const;

 private:
  const Json* find(const char* name) const;
  [[noreturn]] void fail(const char* name, const std::string& wanted) const;

  const Json& object_;
  std::string path_;
};

}  // namespace msa::server
