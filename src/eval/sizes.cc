#include "eval/sizes.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"

namespace msa::eval {
namespace {

constexpr int64_t kMost = 1'000'000'000'000;

int64_t parse_size(std::string_view text, const std::string& option) {
  const auto refuse = [&] {
    throw Error("'" + std::string(text) + "' is no number of tokens", option, "for instance 16k,256k,1M");
  };
  int64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc() || number < 1 || number > kMost) refuse();
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  const int64_t factor = unit.empty() ? 1 : unit == "k" ? 1000 : unit == "M" ? 1000000 : 0;
  if (factor == 0 || number * factor > kMost) refuse();
  return number * factor;
}

}  // namespace

std::vector<int64_t> parse_sizes(const std::string& text, const std::string& option) {
  std::vector<int64_t> sizes;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    sizes.push_back(parse_size(std::string_view(text).substr(at, end - at), option));
    if (sizes.size() > 1 && sizes.back() <= sizes[sizes.size() - 2]) {
      throw Error("the sizes are not ascending", option, "for instance 16k,256k,1M");
    }
    at = end + 1;
  }
  return sizes;
}

std::string size_name(int64_t tokens) {
  if (tokens % 1000000 == 0) return std::to_string(tokens / 1000000) + "M";
  if (tokens % 1000 == 0) return std::to_string(tokens / 1000) + "k";
  return std::to_string(tokens);
}

}  // namespace msa::eval
