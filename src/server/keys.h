// Bearer keys and the namespaces that each may read and write.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace msa::server {

/// What one caller may do. "*" in a list: every namespace; "": documents without one.
struct Access {
  std::string name;
  std::vector<std::string> read, write;

  static Access everything() { return {"anyone", {"*"}, {"*"}}; }
  bool may_read(std::string_view name_space) const;
  bool may_write(std::string_view name_space) const;
  bool reads_all() const { return may_read("*"); }
};

class Keys {
 public:
  /// No key is asked for, everybody may do everything.
  Keys() = default;
  /// {"keys": [{"name", "sha256": hex of the key's SHA-256, "read": […], "write": […]}]}. Throws Error naming file and
  /// field.
  static Keys from_file(const std::filesystem::path& file);

  bool required() const { return !entries_.empty(); }
  /// `header`: the value of Authorization, as "Bearer KEY". None: unknown.
  std::optional<Access> find(std::string_view header) const;

 private:
  struct Entry {
    std::string sha256;  // lower-case hex
    Access access;
  };
  std::vector<Entry> entries_;
};

}  // namespace msa::server
