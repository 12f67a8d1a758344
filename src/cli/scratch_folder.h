// A folder for files that a run needs while it lasts.
#pragma once
#include <filesystem>
#include <string>

namespace msa::cli {

/// Removed at the end, also after an Error; what kills the program leaves it behind.
class ScratchFolder {
 public:
  /// A new folder msa-NAME.XXXXXX below `parent`, which is made where it is missing; empty: the system's place for such
  /// files. Throws Error where no folder can be made.
  ScratchFolder(const std::string& parent, const std::string& name);
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace msa::cli
