#include "tokenizer/byte_pairs.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace msa {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

BytePairs::BytePairs(const std::vector<Merge>& merges, const std::array<int32_t, 256>& byte_ids)
    : byte_ids_(byte_ids), slots_(std::bit_ceil(2 * merges.size() + 2)) {
  shift_ = 64 - std::countr_zero(slots_.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t pair = pair_key(merges[rank].left, merges[rank].right);
    size_t s = slot_of(pair);
    while (slots_[s].rank != kNoRank && slots_[s].pair != pair) s = (s + 1) & (slots_.size() - 1);
    slots_[s] = {pair, static_cast<uint32_t>(rank), merges[rank].result};
  }
}

void BytePairs::find_pair(Scratch& scratch, int32_t at) const {
  Symbol& symbol = scratch.symbols[static_cast<size_t>(at)];
  symbol.pair_rank = kNoRank;
  if (symbol.next < 0) return;
  const uint64_t pair = pair_key(symbol.id, scratch.symbols[static_cast<size_t>(symbol.next)].id);
  size_t s = slot_of(pair);
  while (slots_[s].pair != pair) {
    if (slots_[s].rank == kNoRank) return;
    s = (s + 1) & (slots_.size() - 1);
  }
  symbol.pair_rank = slots_[s].rank;
  symbol.pair_result = slots_[s].result;
  scratch.heap.push_back(static_cast<uint64_t>(symbol.pair_rank) << 32 | static_cast<uint32_t>(at));
}

void BytePairs::encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& tokens) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  for (const char c : word) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
    if (id < 0) continue;
    const int32_t at = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, at - 1, at + 1, kNoRank, -1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  const int32_t count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i + 1 < count; ++i) find_pair(scratch, i);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());

  const auto push_pair = [&](int32_t at) {
    const size_t before = heap.size();
    find_pair(scratch, at);
    if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    const uint64_t best = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const int32_t at = static_cast<int32_t>(best & UINT32_MAX);
    Symbol& left = symbols[static_cast<size_t>(at)];
    if (left.pair_rank != best >> 32) continue;  // one of the two was merged away meanwhile
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    right.pair_rank = kNoRank;
    left.id = left.pair_result;
    left.next = right.next;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = at;
    push_pair(at);
    if (left.previous >= 0) push_pair(left.previous);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next)
    tokens.push_back(symbols[static_cast<size_t>(i)].id);
}

}  // namespace msa
