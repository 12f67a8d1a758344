#include "comm/exchange.h"

#include <gtest/gtest.h>

#include <iostream>
#include <thread>

#include "exchange_checks.h"

namespace msa {
namespace {

using namespace std::chrono_literals;

class Threads : public testing::TestWithParam<int> {};

TEST_P(Threads, KeepTheirPromises) {
  const uint32_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  auto ends = thread_exchanges(GetParam());
  std::vector<std::jthread> threads;
  for (auto& end : ends) threads.emplace_back([&end, seed] { exchange_checks::keeps_promises(*end, seed); });
}

INSTANTIATE_TEST_SUITE_P(exchange, Threads, testing::Values(1, 2, 3, 5));

TEST(Exchange, SaysWhyThereIsNoMessage) {
  auto ends = thread_exchanges(3);
  Message message;
  EXPECT_EQ(ends[0]->receive(1, Exchange::Clock::now() + 20ms, message), "it did not answer in time");
  message.head.resize(3);
  ends[1]->send({0}, message);
  ends[1].reset();
  EXPECT_EQ(ends[0]->receive(1, exchange_checks::soon(), message), "");  // what it sent before still comes
  EXPECT_EQ(message.head.size(), 3u);
  EXPECT_EQ(ends[0]->receive(1, exchange_checks::soon(), message), "it has left the group");
  ends[0]->send({1, 2}, message);  // to a rank that is gone: its affair
  EXPECT_EQ(ends[2]->receive(0, exchange_checks::soon(), message), "");
}

TEST(Exchange, WithoutALauncherThereIsNone) {
  unsetenv("OMPI_COMM_WORLD_SIZE");
  unsetenv("PMI_SIZE");
  EXPECT_EQ(exchange_from_environment(), nullptr);
}

}  // namespace
}  // namespace msa
