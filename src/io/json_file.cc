#include "io/json_file.h"

#include <set>
#include <vector>

#include "core/error.h"
#include "io/file.h"
#include "io/text.h"

namespace msa {
namespace {

using nlohmann::json;

/// Watches the parser: depth, and keys of every open object.
class Guard {
 public:
  explicit Guard(const std::string& where) : where_(where) {}

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start: open_.emplace_back(); [[fallthrough]];
      case json::parse_event_t::array_start:
        if (depth >= kMaxJsonDepth) {
          throw Error("JSON is nested deeper than " + std::to_string(kMaxJsonDepth) + " levels", where_);
        }
        break;
      case json::parse_event_t::object_end: open_.pop_back(); break;
      case json::parse_event_t::key: {
        const std::string& key = parsed.get_ref<const std::string&>();
        if (!open_.back().insert(key).second) throw Error("JSON holds the key '" + printable(key) + "' twice", where_);
        break;
      }
      default: break;
    }
    return true;
  }

 private:
  const std::string& where_;
  std::vector<std::set<std::string>> open_;
};

}  // namespace

json parse_json(std::string_view text, const std::string& where) {
  if (text.size() > kMaxJsonBytes) throw Error("JSON is longer than 256 MiB", where);
  Guard guard(where);
  try {
    return json::parse(text,
                       [&](int depth, json::parse_event_t event, json& parsed) { return guard(depth, event, parsed); });
  } catch (const json::exception& e) {
    throw Error("is not valid JSON: " + printable(e.what(), 300), where, "restore the file from its source");
  }
}

json read_json_file(const std::string& path) { return parse_json(read_file(path, kMaxJsonBytes), path); }

}  // namespace msa
