// Random numbers that are the same everywhere: the standard library leaves its distributions open.
#pragma once
#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "core/error.h"

namespace msa::train {

class RandomStream {
 public:
  /// One independent stream for each pair.
  RandomStream(uint64_t seed, uint64_t stream) : engine_(mixed(seed ^ mixed(stream))) {}

  /// In [0, n). The bias of 2^-64 · n does not matter here.
  int64_t below(int64_t n) {
    MSA_CHECK(n > 0);
    __extension__ using Wide = unsigned __int128;
    return static_cast<int64_t>((static_cast<Wide>(engine_()) * static_cast<uint64_t>(n)) >> 64);
  }
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1.0p-53; }  // [0, 1)

  /// Index drawn in proportion to the weights, of which at least one is above 0.
  size_t weighted(std::span<const double> weights) {
    double total = 0;
    for (const double w : weights) total += w;
    double left = uniform() * total;
    size_t last = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] <= 0) continue;
      last = i;
      left -= weights[i];
      if (left < 0) break;
    }
    return last;
  }

  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) {
      std::swap(items[i - 1], items[static_cast<size_t>(below(static_cast<int64_t>(i)))]);
    }
  }

 private:
  static uint64_t mixed(uint64_t x) {  // splitmix64
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }

  std::mt19937_64 engine_;
};

}  // namespace msa::train
