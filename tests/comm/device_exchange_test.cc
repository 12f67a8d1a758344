// The exchange between GPUs. What needs several of them is skipped, with the reason, where there are fewer.
#include "comm/device_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <iostream>
#include <numeric>
#include <random>
#include <thread>

#include "core/copy.h"
#include "core/error.h"

namespace msa {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using namespace std::chrono_literals;

constexpr DeviceType kCpu = DeviceType::kCpu, kCuda = DeviceType::kCuda;

Exchange::Clock::time_point soon() { return Exchange::Clock::now() + 60s; }

/// One thread a rank, each with its context and its end of the exchange.
void run_ranks(int size, const std::function<Device(int)>& device, DeviceTransport transport,
               const std::function<void(Context&, Exchange&)>& body) {
  auto ends = thread_exchanges(size);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        Context context(1, device(rank));
        const auto exchange = device_exchange(context, std::move(ends[static_cast<size_t>(rank)]), transport);
        body(context, *exchange);
      } catch (const std::exception& error) {
        ADD_FAILURE() << "rank " << rank << ": " << error.what();
      }
    });
  }
}

std::vector<std::byte> random_bytes(std::mt19937& random, size_t n) {
  std::vector<std::byte> out(n);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

/// bytes → the message's body, on the exchange's device.
void put(Context& context, const Exchange& exchange, std::vector<std::byte>& bytes, Message& message) {
  message.body = {};
  if (bytes.empty()) return;
  const auto n = static_cast<int64_t>(bytes.size());
  message.body = message.memory.tensor(DType::kI8, {n}, exchange.body_device());
  copy(context, Tensor(bytes.data(), DType::kI8, {n}), message.body);
}

std::vector<std::byte> bytes_of(Context& context, const Tensor& body) {
  std::vector<std::byte> out(body.empty() ? 0 : static_cast<size_t>(body.bytes()));
  if (!out.empty()) copy(context, body, Tensor(out.data(), DType::kI8, {body.bytes()}));
  return out;
}

std::vector<int> others_of(const Exchange& exchange) {
  std::vector<int> others(static_cast<size_t>(exchange.size() - 1));
  std::iota(others.begin(), others.end(), 1);
  return others;
}

class Gpus : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    const std::string why = device_problem({kCuda, GetParam() - 1});
    if (!why.empty()) GTEST_SKIP() << why;
  }
  void run(const std::function<void(Context&, Exchange&)>& body) const {
    run_ranks(
        GetParam(),
        [](int rank) {
          return Device{kCuda, rank};
        },
        DeviceTransport::kNccl, body);
  }
};

TEST_P(Gpus, BringEveryMessageToEveryRankAndBack) {
  const uint32_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  run([seed](Context& context, Exchange& exchange) {
    EXPECT_EQ(exchange.body_device(), context.device);
    std::mt19937 random(seed);
    Message message;
    for (const size_t size : {0, 1, 17, 256, 4096, 100000, 1 << 20, 40 << 20}) {
      std::vector<std::byte> head = random_bytes(random, size % 1000), body = random_bytes(random, size);
      if (exchange.rank() != 0) {
        ASSERT_EQ(exchange.receive(0, soon(), message), "");
        exchange.send({0}, message);
        continue;
      }
      message.head = head;
      put(context, exchange, body, message);
      exchange.send(others_of(exchange), message);
      for (const int rank : others_of(exchange)) {
        Message reply;
        ASSERT_EQ(exchange.receive(rank, soon(), reply), "");
        EXPECT_TRUE(reply.head == head && bytes_of(context, reply.body) == body) << size << " bytes, rank " << rank;
      }
    }
    synchronize(context);
  });
}

/// A body may be overwritten as soon as it is sent, and read as soon as it is received: all in the context's order.
TEST_P(Gpus, KeepTheOrderOfTheContext) {
  constexpr size_t kRounds = 50, kBytes = 40000;
  run([](Context& context, Exchange& exchange) {
    std::vector<Message> messages(exchange.rank() == 0 ? 1 : kRounds);
    for (size_t round = 0; round < kRounds; ++round) {
      std::vector<std::byte> bytes(kBytes, static_cast<std::byte>(round + 1));
      if (exchange.rank() == 0) {
        put(context, exchange, bytes, messages[0]);
        exchange.send(others_of(exchange), messages[0]);
      } else {
        ASSERT_EQ(exchange.receive(0, soon(), messages[round]), "");
      }
    }
    for (size_t round = 0; exchange.rank() != 0 && round < kRounds; ++round) {
      const std::vector<std::byte> expected(kBytes, static_cast<std::byte>(round + 1));
      EXPECT_TRUE(bytes_of(context, messages[round].body) == expected) << round;
    }
    synchronize(context);
  });
}

/// What a routing layer sends fits into the receiver's buffers: the sender's GPU goes on.
TEST_P(Gpus, DoNotWaitForARankThatIsLate) {
  std::atomic<bool> has_gone_on = false;
  run([&](Context& context, Exchange& exchange) {
    Message message;
    std::vector<std::byte> bytes(512 << 10, std::byte{7});  // 32 queries of the 4B shape
    if (exchange.rank() == 0) {
      put(context, exchange, bytes, message);
      exchange.send(others_of(exchange), message);
      synchronize(context);
      has_gone_on = true;
      return;
    }
    const auto until = Exchange::Clock::now() + 5s;
    while (!has_gone_on && Exchange::Clock::now() < until) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(has_gone_on);
    ASSERT_EQ(exchange.receive(0, soon(), message), "");
    EXPECT_TRUE(bytes_of(context, message.body) == bytes);
  });
}

/// A rank that never takes what was sent to it holds up the GPU until it is given up, and then no more.
TEST_P(Gpus, GoOnWhenARankIsGivenUp) {
  if (GetParam() == 1) GTEST_SKIP() << "there is nobody to give up";
  std::atomic<bool> is_over = false;
  run([&](Context& context, Exchange& exchange) {
    if (exchange.rank() != 0) {
      while (!is_over) std::this_thread::sleep_for(1ms);
      return exchange.give_up(0);
    }
    Message message;
    std::vector<std::byte> bytes(64 << 20, std::byte{7});
    put(context, exchange, bytes, message);
    exchange.send(others_of(exchange), message);
    EXPECT_EQ(exchange.receive(1, Exchange::Clock::now() + 300ms, message), "it did not answer in time");
    exchange.give_up(1);
    synchronize(context);
    EXPECT_THAT(exchange.receive(1, soon(), message), HasSubstr("rank 1 was given up"));
    is_over = true;
  });
}

INSTANTIATE_TEST_SUITE_P(nccl, Gpus, testing::Values(1, 2, 4));

/// All ranks see the error; left to choose, they go through the host.
void expect_refusal(DeviceType device, const std::string& why) {
  const auto where = [device](int) { return Device{device, 0}; };
  auto ends = thread_exchanges(2);
  std::vector<std::jthread> threads;
  for (size_t rank = 0; rank < ends.size(); ++rank) {
    threads.emplace_back([&, rank] {
      Context context(1, where(static_cast<int>(rank)));
      try {
        device_exchange(context, std::move(ends[rank]), DeviceTransport::kNccl);
        ADD_FAILURE() << "rank " << rank;
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), AllOf(HasSubstr("NCCL cannot be used"), HasSubstr(why)));
      }
    });
  }
  threads.clear();
  run_ranks(2, where, DeviceTransport::kAuto,
            [](Context&, Exchange& exchange) { EXPECT_EQ(exchange.body_device(), Device()); });
}

TEST(DeviceExchange, NeedsAGpu) { expect_refusal(kCpu, "rank 0: it runs on the CPU"); }

TEST(DeviceExchange, NeedsAGpuForEveryRank) {
  if (const std::string why = device_problem({kCuda, 0}); !why.empty()) GTEST_SKIP() << why;
  expect_refusal(kCuda, "ranks 0 and 1 use one GPU (GPU-");
}

TEST(DeviceExchange, RefusesAnUnknownName) { EXPECT_THROW(parse_transport("smoke"), Error); }

}  // namespace
}  // namespace msa
