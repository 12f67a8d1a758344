// A bank over ranks that are threads of the test.
#pragma once
#include <filesystem>
#include <functional>
#include <thread>
#include <vector>

#include "engine/shard_driver.h"
#include "engine/shard_server.h"

namespace msa::testing {

/// What a rank other than 0 does; by default it serves.
using RankBody = std::function<void(int rank, Exchange& exchange)>;

inline void serve(Exchange& exchange, const Model* model = nullptr, const std::filesystem::path& bank = {}) {
  Context context(1);
  ShardServer(context, exchange, {}, model, bank).serve(std::chrono::seconds(60));
}

/// Calls body(driver) as rank 0 of `size`; `driver` is null in a run of one.
inline void with_ranks(int size, const std::function<void(ShardDriver*)>& body, const ShardOptions& options = {},
                       RankBody other = {}) {
  if (size == 1) return body(nullptr);
  if (!other) other = [](int, Exchange& exchange) { serve(exchange); };
  auto ends = thread_exchanges(size);
  std::vector<std::jthread> threads;
  for (int rank = 1; rank < size; ++rank) {
    threads.emplace_back([&other, rank, end = std::move(ends[static_cast<size_t>(rank)])] { other(rank, *end); });
  }
  ShardDriver driver(*ends[0], options);
  body(&driver);
}

}  // namespace msa::testing
