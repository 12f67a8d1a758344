#include "server/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "io/text.h"
#include "server/http_error.h"

namespace msa::server {

Json parse_object(std::string_view body) {
  constexpr int kMostLevels = 64;
  const auto bounded = [](int depth, Json::parse_event_t, Json&) {
    if (depth > kMostLevels) throw HttpError{400, "the body is nested more than 64 levels deep", "", "invalid_json"};
    return true;
  };
  try {
    Json parsed = Json::parse(body, bounded);
    if (parsed.is_object()) return parsed;
  } catch (const Json::exception& e) {
    throw HttpError{400, fmt::format("the body is no JSON: {}", printable(e.what(), 200)), "", "invalid_json"};
  }
  throw HttpError{400, "the body must be a JSON object", "", "invalid_json"};
}

std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

const Json* Fields::find(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void Fields::fail(const char* name, const std::string& wanted) const {
  throw HttpError{400, path(name) + " must be " + wanted, path(name), "invalid_value"};
}

bool Fields::has(const char* name) const { return find(name) != nullptr; }

std::optional<std::string> Fields::text(const char* name) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) fail(name, "a string");
  return value->get<std::string>();
}

std::string Fields::need_text(const char* name) const {
  auto value = text(name);
  if (!value) throw HttpError{400, path(name) + " is missing", path(name), "missing_value"};
  return *value;
}

std::optional<int64_t> Fields::integer(const char* name, int64_t least, int64_t most) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const std::string wanted = fmt::format("a whole number from {} to {}", least, most);
  if (!value->is_number_integer()) fail(name, wanted);
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) fail(name, wanted);
  const auto number = value->get<int64_t>();
  if (number < least || number > most) fail(name, wanted);
  return number;
}

std::optional<double> Fields::number(const char* name, double least, double most) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const std::string wanted = fmt::format("a number from {} to {}", least, most);
  if (!value->is_number()) fail(name, wanted);
  const auto number = value->get<double>();
  if (!(number >= least && number <= most)) fail(name, wanted);
  return number;
}

std::optional<bool> Fields::boolean(const char* name) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) fail(name, "true or false");
  return value->get<bool>();
}

std::vector<std::string> Fields::texts(const char* name, size_t most) const {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (value->is_string()) return {value->get<std::string>()};
  const std::string wanted = fmt::format("a string, or a list of at most {} strings", most);
  if (!value->is_array() || value->size() > most) fail(name, wanted);
  std::vector<std::string> out;
  for (const Json& item : *value) {
    if (!item.is_string()) fail(name, wanted);
    out.push_back(item.get<std::string>());
  }
  return out;
}

const Json* Fields::object(const char* name) const {
  const Json* value = find(name);
  if (value != nullptr && !value->is_object()) fail(name, "an object");
  return value;
}

const Json* Fields::array(const char* name) const {
  const Json* value = find(name);
  if (value != nullptr && !value->is_array()) fail(name, "a list");
  return value;
}

void Fields::allow_only(std::initializer_list<const char*> names) const {
  for (const auto& [key, value] : object_.items()) {
    const bool known = std::any_of(names.begin(), names.end(), [&k = key](const char* name) { return k == name; });
    if (known || value.is_null()) continue;
    const std::string field = (path_.empty() ? "" : path_ + ".") + printable(key, 60);
    throw HttpError{400, field + " is not supported here (fix: leave it out)", field, "unsupported_parameter"};
  }
}

}  // namespace msa::server
