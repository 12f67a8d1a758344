// Random routing keys and queries as a bank holds them, for the tests of the routing scan.
#pragma once
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "core/dtype.h"

namespace msa {

enum class KeyKind { kRandom, kClustered };  // clustered: a few centres and a little noise

/// Keys [n_keys, n] whose heads of 32 elements have norm 1, as the cosine router stores them.
inline std::vector<bf16> routing_keys(int64_t n_keys, int n, KeyKind kind, std::mt19937& engine) {
  constexpr int kHead = 32, kCentres = 7;
  // Sums of four 16-bit numbers: near enough to normal, and fast for millions of keys.
  auto draw = [state = uint64_t{engine()} << 32 | engine()]() mutable {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t bits = state ^ state >> 29;
    const int64_t sum =
        static_cast<int64_t>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    return static_cast<float>(sum - 131070) * (1.0f / 37837);
  };
  std::vector<float> centres(static_cast<size_t>(kCentres * n)), key(static_cast<size_t>(n));
  for (float& x : centres) x = draw();
  std::vector<bf16> keys(static_cast<size_t>(n_keys * n));
  for (int64_t j = 0; j < n_keys; ++j) {
    const float* centre = centres.data() + static_cast<int64_t>(engine() % kCentres) * n;
    for (int i = 0; i < n; ++i)
      key[static_cast<size_t>(i)] = kind == KeyKind::kRandom ? draw() : centre[i] + 0.15f * draw();
    for (int head = 0; head < n; head += kHead) {
      float squares = 0;
      for (int i = head; i < head + kHead; ++i) squares += key[static_cast<size_t>(i)] * key[static_cast<size_t>(i)];
      const float scale = 1 / std::sqrt(squares);
      for (int i = head; i < head + kHead; ++i) {
        keys[static_cast<size_t>(j * n + i)] = to_bf16(key[static_cast<size_t>(i)] * scale);
      }
    }
  }
  return keys;
}

/// Queries [m, n]: random, of the size that folded heads have; with clustered keys some lie near keys.
inline std::vector<float> routing_queries(int m, int n, const std::vector<bf16>& keys, std::mt19937& engine) {
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> queries(static_cast<size_t>(m * n));
  for (int q = 0; q < m; ++q) {
    const size_t like = engine() % (keys.size() / static_cast<size_t>(n));
    const float weight = engine() % 2 == 0 ? 0.3f : 0.0f;
    for (int i = 0; i < n; ++i) {
      queries[static_cast<size_t>(q * n + i)] =
          normal(engine) + weight * to_float(keys[like * static_cast<size_t>(n) + static_cast<size_t>(i)]);
    }
  }
  return queries;
}

inline std::vector<bf16> rounded(const std::vector<float>& x) {
  std::vector<bf16> out;
  for (const float value : x) out.push_back(to_bf16(value));
  return out;
}

/// The exact product of two bf16 vectors, to the precision of double.
inline double exact_product(const bf16* a, const bf16* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(to_float(a[i])) * static_cast<double>(to_float(b[i]));
  return sum;
}

inline double exact_norm(const bf16* a, int n) { return std::sqrt(exact_product(a, a, n)); }

}  // namespace msa
