// What every backend of Exchange promises, as its ranks check it together.
#pragma once
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "comm/exchange.h"

namespace msa::exchange_checks {

inline Exchange::Clock::time_point soon() { return Exchange::Clock::now() + std::chrono::seconds(60); }

inline std::vector<std::byte> bytes_of(const Tensor& body) {
  if (body.empty()) return {};
  return {body.as<std::byte>(), body.as<std::byte>() + body.bytes()};
}

inline void fill(Message& message, size_t head, size_t body, std::mt19937& random) {
  message.head.resize(head);
  for (std::byte& b : message.head) b = static_cast<std::byte>(random());
  message.body = {};
  if (body == 0) return;
  message.body = message.memory.tensor(DType::kI8, {static_cast<int64_t>(body)});
  for (size_t i = 0; i < body; ++i) message.body.as<std::byte>()[i] = static_cast<std::byte>(random());
}

/// Sizes around those at which a backend changes its way, then large ones; many on their way at once.
inline void keeps_promises(Exchange& exchange, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::pair<size_t, size_t>> sizes;
  for (const size_t head : {0, 1, 100, 4000, 4015, 4016, 4017, 5000, 9000}) {
    for (const size_t body : {0, 1, 17, 4016, 100000}) sizes.emplace_back(head, body);
  }
  sizes.emplace_back(size_t{3} << 20, size_t{5} << 20);
  sizes.emplace_back(10, size_t{70} << 20);
  std::vector<int> others(static_cast<size_t>(exchange.size() - 1));
  std::iota(others.begin(), others.end(), 1);
  Message sent, got;
  if (exchange.rank() != 0) {
    for (size_t i = 0; i < sizes.size(); ++i) {  // sends back what comes
      ASSERT_EQ(exchange.receive(0, soon(), got), "");
      exchange.send({0}, got);
    }
    return;
  }
  EXPECT_EQ(exchange.body_device(), Device());
  const auto expect = [&](const std::vector<std::byte>& head, const std::vector<std::byte>& body) {
    for (const int rank : others) {
      ASSERT_EQ(exchange.receive(rank, soon(), got), "");
      EXPECT_TRUE(got.head == head && bytes_of(got.body) == body) << head.size() << " and " << body.size() << " bytes";
    }
  };
  std::vector<std::pair<std::vector<std::byte>, std::vector<std::byte>>> pending;
  for (const auto& [head, body] : sizes) {
    fill(sent, head, body, random);
    exchange.send(others, sent);
    pending.emplace_back(sent.head, bytes_of(sent.body));
    fill(sent, head, body, random);  // the message may be reused at once
    if (pending.size() < 3 && body < 5000) continue;
    for (const auto& [h, b] : pending) expect(h, b);
    pending.clear();
  }
  for (const auto& [h, b] : pending) expect(h, b);
}

}  // namespace msa::exchange_checks
