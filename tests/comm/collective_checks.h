// What every backend promises, checked from inside a group: each rank calls these, in the same order.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace msa::collective_checks {

/// Around the borders of shares, of the blocks of the sum, and of the pieces and algorithms of MPI.
inline const std::vector<size_t> kSizes = {0, 1, 2, 3, 4, 7, 64, 1000, 2047, 2048, 2049, 10007, 300'001};

inline std::vector<float> summand(int rank, size_t n, uint32_t seed) {
  std::mt19937 random(seed * 1000u + static_cast<uint32_t>(rank));
  std::uniform_real_distribution<float> mantissa(-1.0f, 1.0f);
  std::uniform_int_distribution<int> exponent(-20, 20);  // so that another order of summation shows
  std::vector<float> values(n);
  for (float& value : values) value = std::ldexp(mantissa(random), exponent(random));
  return values;
}

inline std::vector<uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return bits;
}

inline void sums_in_rank_order(Communicator& comm, uint32_t seed) {
  for (const size_t n : kSizes) {
    std::vector<float> expected = summand(0, n, seed);
    for (int rank = 1; rank < comm.size(); ++rank) {
      const std::vector<float> other = summand(rank, n, seed);
      for (size_t i = 0; i < n; ++i) expected[i] += other[i];
    }
    std::vector<float> data = summand(comm.rank(), n, seed);
    comm.all_reduce_sum(data.data(), n);
    EXPECT_EQ(bits_of(data), bits_of(expected)) << n << " elements, rank " << comm.rank();
  }
}

inline void sums_carry_infinities_and_nan(Communicator& comm) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> data = {kInfinity, comm.rank() == 0 ? kInfinity : -kInfinity, -0.0f, 1.0f};
  if (comm.rank() == comm.size() - 1) data[3] = std::nanf("");
  comm.all_reduce_sum(data.data(), data.size());
  EXPECT_EQ(data[0], kInfinity);
  if (comm.size() > 1) {
    EXPECT_TRUE(std::isnan(data[1]));
  }
  EXPECT_TRUE(std::signbit(data[2]));
  EXPECT_TRUE(std::isnan(data[3]));
}

inline std::vector<std::byte> block_of(int rank, size_t bytes) {
  std::vector<std::byte> block(bytes);
  for (size_t i = 0; i < bytes; ++i)
    block[i] = static_cast<std::byte>(i * 7 + static_cast<size_t>(rank) * 31 + i / 251);
  return block;
}

inline void broadcasts_from_every_root(Communicator& comm) {
  for (int root = 0; root < comm.size(); ++root) {
    for (const size_t bytes : kSizes) {
      std::vector<std::byte> data = block_of(comm.rank() == root ? root : 100, bytes);
      comm.broadcast(bytes == 0 ? nullptr : data.data(), bytes, root);
      EXPECT_TRUE(data == block_of(root, bytes)) << bytes << " bytes from " << root << ", rank " << comm.rank();
    }
  }
}

inline void gathers_blocks_of_any_size(Communicator& comm) {
  for (size_t shift = 0; shift < kSizes.size(); ++shift) {
    const auto size_of = [&](int rank) { return kSizes[(shift + static_cast<size_t>(rank)) % kSizes.size()]; };
    const std::vector<std::byte> mine = block_of(comm.rank(), size_of(comm.rank()));
    const auto blocks = comm.all_gather(mine.empty() ? nullptr : mine.data(), mine.size());
    ASSERT_EQ(blocks.size(), static_cast<size_t>(comm.size()));
    for (int rank = 0; rank < comm.size(); ++rank) {
      EXPECT_TRUE(blocks[static_cast<size_t>(rank)] == block_of(rank, size_of(rank))) << shift << ", block " << rank;
    }
  }
  for (const auto& block : comm.all_gather(nullptr, 0)) EXPECT_TRUE(block.empty());
}

/// Many operations of mixed kind and size without a pause between them.
inline void keeps_step(Communicator& comm, uint32_t seed) {
  std::mt19937 random(seed);  // the same on all ranks
  for (int step = 0; step < 200; ++step) {
    const size_t n = random() % 40;
    const int root = static_cast<int>(random() % static_cast<uint32_t>(comm.size()));
    const float sum_of_ranks = static_cast<float>(comm.size() * (comm.size() - 1) / 2);
    std::vector<float> data(n, static_cast<float>(comm.rank()));
    switch (random() % 4) {
      case 0: comm.barrier(); break;
      case 1:
        comm.all_reduce_sum(data.data(), n);
        EXPECT_THAT(data, testing::Each(sum_of_ranks));
        break;
      case 2:
        comm.broadcast(data.data(), n * sizeof(float), root);
        EXPECT_THAT(data, testing::Each(static_cast<float>(root)));
        break;
      default: EXPECT_EQ(comm.all_gather(data.data(), n).back().size(), n); break;
    }
  }
}

inline void keeps_all_promises(Communicator& comm, uint32_t seed) {
  ASSERT_GE(comm.rank(), 0);
  ASSERT_LT(comm.rank(), comm.size());
  sums_in_rank_order(comm, seed);
  sums_carry_infinities_and_nan(comm);
  broadcasts_from_every_root(comm);
  gathers_blocks_of_any_size(comm);
  comm.barrier();
  keeps_step(comm, seed);
}

}  // namespace msa::collective_checks
