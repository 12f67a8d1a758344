// JSON from files that nobody vouches for: bounded size and depth, no key twice, failures that name the file.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace msa {

constexpr size_t kMaxJsonBytes = size_t{256} << 20;
constexpr int kMaxJsonDepth = 64;

/// `where` names the text in errors. Throws Error on anything that is not one JSON value.
nlohmann::json parse_json(std::string_view text, const std::string& where);
nlohmann::json read_json_file(const std::string& path);

}  // namespace msa
