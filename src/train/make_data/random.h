// Draws that are the same on every machine.
#pragma once
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "io/checksum.h"

namespace msa::train {

class Random {
 public:
  explicit Random(uint64_t seed) : bits_(seed) {}
  /// A stream of its own for each name, so that what is drawn for one document does not depend on others.
  Random(uint64_t seed, std::string_view name) : bits_(hash(seed, name)) {}

  static uint64_t hash(uint64_t seed, std::string_view name) {
    const std::string key = std::to_string(seed).append(":").append(name);
    return xxh3_64(key.data(), key.size());
  }

  uint64_t below(uint64_t n) {
    MSA_CHECK(n > 0);
    return bits_() % n;
  }
  bool chance(double p) { return static_cast<double>(bits_() >> 11) * 0x1p-53 < p; }
  template <class T, size_t n>
  const T& pick(const T (&list)[n]) {
    return list[below(n)];
  }

 private:
  std::mt19937_64 bits_;  // its output is fixed by the standard; the standard's distributions are not
};

/// Keeps `most` of the items from `begin` on, drawn at random, in their order.
template <class T>
void keep_some(std::vector<T>& items, size_t begin, size_t most, Random& random) {
  while (items.size() - begin > most) {
    items.erase(items.begin() + static_cast<ptrdiff_t>(begin + random.below(items.size() - begin)));
  }
}

}  // namespace msa::train
