// Byte-pair encoding of one word: the merge of lowest rank first, leftmost among equals.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace msa {

struct Merge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t result = 0;
};

/// Const after construction; threads share it and bring a Scratch each.
class BytePairs {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Symbol {
    int32_t id;
    int32_t previous, next;  // indices of symbols, -1 at the ends
    uint32_t pair_rank;      // of (this, next); kNoRank: no such merge
    int32_t pair_result;
  };
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<uint64_t> heap;  // rank << 32 | symbol
  };

  BytePairs() = default;
  /// merges: rank = index; of equal pairs the last counts. byte_ids: token of each single byte, -1: none.
  BytePairs(const std::vector<Merge>& merges, const std::array<int32_t, 256>& byte_ids);

  /// Appends the word's tokens. Bytes without a token are left out. O(n log n). word.size() < 2^31.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& tokens) const;

 private:
  struct Slot {
    uint64_t pair = UINT64_MAX;  // left << 32 | right
    uint32_t rank = kNoRank;
    int32_t result = -1;
  };
  size_t slot_of(uint64_t pair) const { return (pair * 0x9E3779B97F4A7C15ull) >> shift_; }
  void find_pair(Scratch& scratch, int32_t at) const;

  std::array<int32_t, 256> byte_ids_{};
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  int shift_ = 63;
};

}  // namespace msa
