// Logs go to stderr; results go to stdout and never through here.
#pragma once
#include <spdlog/spdlog.h>

namespace msa {

/// Level by name: "debug", "info", "warn", "error", "off". Throws Error on another name.
void set_log_level(const std::string& level);

}  // namespace msa
