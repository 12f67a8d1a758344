// Typed access to the fields of a JSON object; every failure names the field by its whole path.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "io/text.h"

namespace msa {

/// A view of a JSON object. `where` is the file and the path to it: "tokenizer.json: model".
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object_.is_object()) throw Error("must be an object, not " + std::string(object_.type_name()), where_);
  }

  const std::string& where() const { return where_; }
  std::string where(std::string_view key) const { return where_ + "." + std::string(key); }

  /// Null where the field is missing or null.
  const nlohmann::json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  const nlohmann::json& need(const char* key) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) throw Error("the field is missing", where(key));
    return *value;
  }
  JsonFields need_object(const char* key) const { return JsonFields(need(key), where(key)); }
  const nlohmann::json& need_array(const char* key) const {
    const nlohmann::json& value = need(key);
    if (!value.is_array()) wrong_type(key, "an array", value);
    return value;
  }
  const std::string& need_string(const char* key) const {
    const nlohmann::json& value = need(key);
    if (!value.is_string()) wrong_type(key, "a string", value);
    return value.get_ref<const std::string&>();
  }
  double need_number(const char* key) const {
    const nlohmann::json& value = need(key);
    if (!value.is_number()) wrong_type(key, "a number", value);
    return value.get<double>();
  }
  bool flag(const char* key, bool otherwise) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) wrong_type(key, "true or false", *value);
    return value->get<bool>();
  }
  /// Throws where the object holds another key: a misspelt field never passes in silence.
  void allow_only(std::initializer_list<std::string_view> keys) const {
    for (const auto& item : object_.items()) {
      bool known = false;
      for (const std::string_view key : keys) known = known || key == item.key();
      if (!known) throw Error("no such field is known", where(printable(item.key())), "remove it or mend its name");
    }
  }

 private:
  [[noreturn]] void wrong_type(const char* key, const char* wanted, const nlohmann::json& value) const {
    throw Error("must be " + std::string(wanted) + ", not " + value.type_name(), where(key));
  }

  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace msa
