#include "core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include "core/error.h"

namespace msa {

void set_log_level(const std::string& level) {
  const auto parsed = spdlog::level::from_str(level == "warn" ? "warning" : level);
  if (parsed == spdlog::level::off && level != "off") {
    throw Error("unknown log level '" + level + "'", "--log-level", "use debug, info, warn, error or off");
  }
  static auto logger = [] {
    auto made = spdlog::stderr_color_mt("msa");
    made->set_pattern("%^%l%$: %v");
    spdlog::set_default_logger(made);
    return made;
  }();
  spdlog::set_level(parsed);
}

}  // namespace msa
