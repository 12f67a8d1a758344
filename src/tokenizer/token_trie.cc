#include "tokenizer/token_trie.h"

namespace msa {

bool TokenTrie::add(std::string_view content, int32_t id) {
  starts_[static_cast<uint8_t>(content[0])] = true;
  int32_t node = 0;
  for (const char c : content) {
    const auto [child, inserted] = children_.try_emplace(edge(node, c), static_cast<int32_t>(ids_.size()));
    if (inserted) ids_.push_back(-1);
    node = child->second;
  }
  int32_t& place = ids_[static_cast<size_t>(node)];
  if (place >= 0) return false;
  place = id;
  return true;
}

std::optional<TokenTrie::Match> TokenTrie::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<uint8_t>(text[begin])]) continue;
    Match longest{begin, begin, -1};
    int32_t node = 0;
    for (size_t i = begin; i < text.size(); ++i) {
      const auto child = children_.find(edge(node, text[i]));
      if (child == children_.end()) break;
      node = child->second;
      const int32_t id = ids_[static_cast<size_t>(node)];
      if (id >= 0) longest = {begin, i + 1, id};
    }
    if (longest.id >= 0) return longest;
  }
  return std::nullopt;
}

}  // namespace msa
