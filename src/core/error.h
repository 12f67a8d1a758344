// Two families of failure. A broken input or environment throws msa::Error; a broken invariant of our own aborts.
#pragma once
#include <stdexcept>
#include <string>

namespace msa {

/// A broken input or environment. The message always says what is wrong, where, and how to mend it.
class Error : public std::runtime_error {
 public:
  /// `where`: a file, tensor, option or field. `fix`: what the user can do; may be empty when nothing can be done.
  Error(std::string what, std::string where, std::string fix = "");

  const std::string& problem() const { return problem_; }
  const std::string& where() const { return where_; }
  const std::string& fix() const { return fix_; }

 private:
  std::string problem_;
  std::string where_;
  std::string fix_;
};

[[noreturn]] void abort_on_broken_invariant(const char* expression, const char* file, int line);

}  // namespace msa

/// Our own invariant: if it does not hold, the program is wrong and stops at once.
#define MSA_CHECK(expression) \
  ((expression) ? static_cast<void>(0) : ::msa::abort_on_broken_invariant(#expression, __FILE__, __LINE__))
