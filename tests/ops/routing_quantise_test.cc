#include "ops/routing_quantise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <string>

#include "routing_testing.h"

namespace msa {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Quantised {
  std::vector<uint32_t> memory;
  int n;

  Quantised(const bf16* key, int width) : memory(quantised_key_bytes(width) / 4), n(width) {
    quantise_key(key, n, memory.data());
  }
  const int8_t* values() const { return reinterpret_cast<const int8_t*>(memory.data()); }
  KeyCertificate certificate() const {
    KeyCertificate c;
    std::memcpy(&c, values() + n, sizeof(c));
    return c;
  }
};

/// Vectors that are hard to quantise or to add up.
std::vector<std::vector<bf16>> vectors(int n, std::mt19937& engine) {
  std::normal_distribution<float> normal;
  const auto make = [&](const std::function<float(int)>& f) {
    std::vector<bf16> v;
    for (int i = 0; i < n; ++i) v.push_back(to_bf16(f(i)));
    return v;
  };
  std::vector<std::vector<bf16>> all = {
      make([&](int) { return normal(engine); }),
      make([&](int) { return 0.03f * normal(engine); }),
      make([&](int i) { return i == 3 ? 50.0f : 0.01f * normal(engine); }),  // one element holds all
      make([](int) { return 0.0f; }),
      make([&](int) { return 1e-39f * normal(engine); }),  // not normal numbers
      make([&](int) { return 1e-30f * normal(engine); }),
      make([&](int) { return 1e15f * normal(engine); }),
      make([](int i) { return i % 2 == 0 ? 1.0f : -1.0f; }),
      make([](int) { return 1.0f; }),
      make([&](int i) { return std::ldexp(normal(engine), i % 40 - 20); }),
  };
  for (const KeyKind kind : {KeyKind::kRandom, KeyKind::kClustered}) {
    const std::vector<bf16> keys = routing_keys(4, n, kind, engine);
    for (int j = 0; j < 4; ++j) all.emplace_back(keys.begin() + j * n, keys.begin() + (j + 1) * n);
  }
  return all;
}

TEST(RoutingQuantise, CertificateHoldsAndIsTight) {
  for (const int n : {32, 64, 192, 512, 1024}) {
    const uint32_t seed = static_cast<uint32_t>(n);
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 engine(seed);
    for (const std::vector<bf16>& x : vectors(n, engine)) {
      const Quantised q(x.data(), n);
      const KeyCertificate c = q.certificate();
      double error = 0, norm = 0, quantised = 0;
      for (int i = 0; i < n; ++i) {
        const double value = static_cast<double>(to_float(x[static_cast<size_t>(i)]));
        const double stands = static_cast<double>(c.scale) * q.values()[i];
        error += (value - stands) * (value - stands), norm += value * value, quantised += stands * stands;
        if (c.scale > 1e-30f) {
          EXPECT_LE(std::abs(value - stands), 0.5001 * static_cast<double>(c.scale)) << "element " << i;
        }
      }
      const double tiny = 1.2e-38;
      const auto expect_just_above = [&](float bound, double squares) {
        EXPECT_GE(static_cast<double>(bound), std::sqrt(squares));
        EXPECT_LE(static_cast<double>(bound), std::sqrt(squares) * 1.00001 + tiny);
      };
      expect_just_above(c.error, error);
      expect_just_above(c.norm, norm);
      expect_just_above(c.quantised_norm, quantised);
    }
  }
}

/// Float32 sums in several orders, as a device may add up, and the exact one.
std::vector<double> computed_scores(const std::vector<bf16>& a, const std::vector<bf16>& b, int n) {
  const auto product = [&](int i) { return to_float(a[static_cast<size_t>(i)]) * to_float(b[static_cast<size_t>(i)]); };
  float forward = 0, backward = 0, in_parts = 0;
  for (int i = 0; i < n; ++i) forward += product(i), backward += product(n - 1 - i);
  for (int lane = 0; lane < 16; ++lane) {
    float part = 0;
    for (int i = lane; i < n; i += 16) part += product(i);
    in_parts += part;
  }
  return {exact_product(a.data(), b.data(), n), static_cast<double>(forward), static_cast<double>(backward),
          static_cast<double>(in_parts)};
}

/// A key that is quantised without error and meets the error of the query with its full length.
std::vector<bf16> worst_key(const std::vector<bf16>& query, int n) {
  const Quantised q(query.data(), n);
  std::vector<bf16> key;
  for (int i = 0; i < n; ++i) {
    const double error = static_cast<double>(to_float(query[static_cast<size_t>(i)])) -
                         static_cast<double>(q.certificate().scale) * q.values()[i];
    key.push_back(to_bf16(error < 0 ? -1.0f : 1.0f));
  }
  return key;
}

TEST(RoutingQuantise, BoundsHoldTheScore) {
  for (const int n : {32, 64, 192, 512, 1024}) {
    const uint32_t seed = static_cast<uint32_t>(n + 1);
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 engine(seed);
    const auto queries = vectors(n, engine);
    auto keys = vectors(n, engine);
    for (const auto& query : queries) keys.push_back(worst_key(query, n));
    for (size_t q = 0; q < queries.size(); ++q) {
      for (size_t k = 0; k < keys.size(); ++k) {
        const ScoreBounds bounds =
            score_bounds(Quantised(queries[q].data(), n).memory.data(), Quantised(keys[k].data(), n).memory.data(), n);
        for (const double score : computed_scores(queries[q], keys[k], n)) {
          EXPECT_LE(static_cast<double>(bounds.lower), score) << "query " << q << " key " << k << " n " << n;
          EXPECT_GE(static_cast<double>(bounds.upper), score) << "query " << q << " key " << k << " n " << n;
        }
      }
    }
  }
}

/// 4-bit numbers stand for what the certificate says, and the bounds hold.
TEST(RoutingQuantise, FourBits) {
  for (const int n : {64, 192, 320, 1024}) {
    const uint32_t seed = static_cast<uint32_t>(n + 2);
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 engine(seed);
    const auto queries = vectors(n, engine), keys = vectors(n, engine);
    for (size_t k = 0; k < keys.size(); ++k) {
      std::vector<uint32_t> packed(quantised_key_bytes(n, 4) / 4);
      quantise_key(keys[k].data(), n, packed.data(), 4);
      const auto* const bytes = reinterpret_cast<const uint8_t*>(packed.data());
      KeyCertificate c;
      std::memcpy(&c, bytes + n / 2, sizeof(c));
      if (c.error < kInf) {
        double error = 0;
        for (int i = 0; i < n; ++i) {
          const uint8_t byte = bytes[i / 64 * 32 + i % 32];
          const int four = i % 64 < 32 ? byte & 15 : byte >> 4;
          const double stands = static_cast<double>(c.scale) * 16 * (four < 8 ? four : four - 16);
          const double lost = static_cast<double>(to_float(keys[k][static_cast<size_t>(i)])) - stands;
          error += lost * lost;
        }
        EXPECT_GE(static_cast<double>(c.error), std::sqrt(error));
        EXPECT_LE(static_cast<double>(c.error), std::sqrt(error) * 1.00001 + 1.2e-38);
      }
      for (size_t q = 0; q < queries.size(); ++q) {
        const ScoreBounds bounds = score_bounds(Quantised(queries[q].data(), n).memory.data(), packed.data(), n, 4);
        for (const double score : computed_scores(queries[q], keys[k], n)) {
          EXPECT_LE(static_cast<double>(bounds.lower), score) << "query " << q << " key " << k << " n " << n;
          EXPECT_GE(static_cast<double>(bounds.upper), score) << "query " << q << " key " << k << " n " << n;
        }
      }
    }
  }
}

TEST(RoutingQuantise, BoundsAreNarrow) {
  std::mt19937 engine(3);
  SCOPED_TRACE("seed 3");
  for (const int n : {192, 1024}) {
    for (const KeyKind kind : {KeyKind::kRandom, KeyKind::kClustered}) {
      const std::vector<bf16> keys = routing_keys(50, n, kind, engine);
      const std::vector<bf16> queries = rounded(routing_queries(10, n, keys, engine));
      for (int q = 0; q < 10; ++q) {
        for (int k = 0; k < 50; ++k) {
          const bf16 *const query = queries.data() + q * n, *const key = keys.data() + k * n;
          const ScoreBounds bounds =
              score_bounds(Quantised(query, n).memory.data(), Quantised(key, n).memory.data(), n);
          const double width = static_cast<double>(bounds.upper) - static_cast<double>(bounds.lower);
          EXPECT_LE(width, 0.05 * exact_norm(query, n) * exact_norm(key, n));
        }
      }
    }
  }
}

TEST(RoutingQuantise, KnowsNothingOfBrokenNumbers) {
  constexpr int n = 64;
  std::mt19937 engine(4);
  const std::vector<bf16> good = routing_keys(1, n, KeyKind::kRandom, engine);
  const Quantised good_key(good.data(), n);
  for (const float broken : {std::numeric_limits<float>::quiet_NaN(), kInf, -kInf, 3e38f, -2e18f}) {
    for (const int at : {0, 17, n - 1}) {
      std::vector<bf16> bad = good;
      bad[static_cast<size_t>(at)] = to_bf16(broken);
      const Quantised bad_key(bad.data(), n);
      for (int i = 0; i < n; ++i) EXPECT_EQ(bad_key.values()[i], 0);
      for (const auto& [query, key] : {std::pair(&good_key, &bad_key), std::pair(&bad_key, &good_key)}) {
        const ScoreBounds bounds = score_bounds(query->memory.data(), key->memory.data(), n);
        EXPECT_EQ(bounds.lower, -kInf);
        EXPECT_EQ(bounds.upper, kInf);
      }
    }
  }
}

/// The selection rule on the CPU: every chunk that a certified scan drops is below the k best.
TEST(RoutingQuantise, CandidatesHoldTheBest) {
  constexpr int kKeys = 3000, kBest = 16, n = 192;
  for (const KeyKind kind : {KeyKind::kRandom, KeyKind::kClustered}) {
    std::mt19937 engine(5);
    SCOPED_TRACE("seed 5");
    const std::vector<bf16> keys = routing_keys(kKeys, n, kind, engine);
    const std::vector<bf16> query = rounded(routing_queries(1, n, keys, engine));
    const Quantised quantised_query(query.data(), n);
    std::vector<float> lower, upper;
    std::vector<std::pair<double, int>> scores;
    for (int j = 0; j < kKeys; ++j) {
      const bf16* const key = keys.data() + j * n;
      const ScoreBounds bounds = score_bounds(quantised_query.memory.data(), Quantised(key, n).memory.data(), n);
      lower.push_back(bounds.lower), upper.push_back(bounds.upper);
      scores.emplace_back(-exact_product(query.data(), key, n), j);
    }
    std::sort(scores.begin(), scores.end());
    std::vector<float> sorted = lower;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    const float threshold = sorted[kBest - 1];
    for (int i = 0; i < kBest; ++i)
      EXPECT_GE(upper[static_cast<size_t>(scores[static_cast<size_t>(i)].second)], threshold);
    if (kind == KeyKind::kRandom) {
      EXPECT_LT(std::count_if(upper.begin(), upper.end(), [&](float u) { return u >= threshold; }), kKeys / 5);
    }
  }
}

}  // namespace
}  // namespace msa
