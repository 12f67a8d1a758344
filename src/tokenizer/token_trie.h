// Finds added tokens in a text: the leftmost match, and of those the longest.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace msa {

class TokenTrie {
 public:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    int32_t id = 0;
  };

  /// `content` is not empty. False: it is there already.
  bool add(std::string_view content, int32_t id);
  std::optional<Match> find(std::string_view text, size_t from) const;

 private:
  static uint64_t edge(int32_t node, char c) { return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(c); }

  std::unordered_map<uint64_t, int32_t> children_;  // edge → node
  std::vector<int32_t> ids_{-1};                    // by node; -1: no token ends here
  std::array<bool, 256> starts_{};                  // bytes that a token begins with
};

}  // namespace msa
