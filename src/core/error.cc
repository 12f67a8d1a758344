#include "core/error.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace msa {
namespace {

std::string join(const std::string& what, const std::string& where, const std::string& fix) {
  std::string text = where.empty() ? what : where + ": " + what;
  if (!fix.empty()) text += " (fix: " + fix + ")";
  return text;
}

}  // namespace

Error::Error(std::string what, std::string where, std::string fix)
    : std::runtime_error(join(what, where, fix)),
      problem_(std::move(what)),
      where_(std::move(where)),
      fix_(std::move(fix)) {}

void abort_on_broken_invariant(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "msa: broken invariant: %s at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace msa
