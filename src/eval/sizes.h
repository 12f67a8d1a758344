// Numbers of tokens as people write them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace msa::eval {

/// "16k,64k,1M": ascending numbers of tokens, k = 1,000 and M = 1,000,000. Throws Error (where = `option`) otherwise.
std::vector<int64_t> parse_sizes(const std::string& text, const std::string& option);
std::string size_name(int64_t tokens);  // 16000 → "16k"

}  // namespace msa::eval
