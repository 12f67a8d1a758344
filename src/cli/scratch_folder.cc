#include "cli/scratch_folder.h"

#include <stdlib.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace msa::cli {

ScratchFolder::ScratchFolder(const std::string& parent, const std::string& name) {
  const std::filesystem::path below =
      parent.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(parent);
  std::error_code ignored;
  std::filesystem::create_directories(below, ignored);
  std::string pattern = (std::filesystem::absolute(below) / ("msa-" + name + ".XXXXXX")).string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    throw Error(std::string("no folder can be made here: ") + std::strerror(errno), below.string(),
                "name a folder that may be written to");
  }
  path_ = pattern;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace msa::cli
