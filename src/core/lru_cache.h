// What was used last, up to a number of bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <unordered_map>
#include <utility>

namespace msa {

template <class Key, class Value, class Hash = std::hash<Key>>
class LruCache {
 public:
  explicit LruCache(int64_t most_bytes) : most_bytes_(most_bytes) {}

  /// Null where it is not here; it is then the one used last. Valid until the next put().
  const Value* find(const Key& key) {
    const auto found = places_.find(key);
    if (found == places_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found->second);
    return &found->second->value;
  }

  /// In place of what the key had; those used longest ago make room. Not kept where it alone is too large.
  void put(const Key& key, Value value, int64_t bytes) {
    if (const auto found = places_.find(key); found != places_.end()) drop(found->second);
    if (bytes > most_bytes_) return;
    while (bytes_ + bytes > most_bytes_) drop(std::prev(entries_.end()));
    entries_.push_front({key, std::move(value), bytes});
    places_.emplace(key, entries_.begin());
    bytes_ += bytes;
  }

  int64_t bytes() const { return bytes_; }
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Key key;
    Value value;
    int64_t bytes;
  };
  using Place = typename std::list<Entry>::iterator;

  void drop(Place place) {
    bytes_ -= place->bytes;
    places_.erase(place->key);
    entries_.erase(place);
  }

  int64_t most_bytes_, bytes_ = 0;
  std::list<Entry> entries_;  // the last used first
  std::unordered_map<Key, Place, Hash> places_;
};

}  // namespace msa
