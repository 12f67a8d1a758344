// Hostile variants of a well-formed file: every truncation, and random damage.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>

#include "core/error.h"

namespace msa {

/// Parses a copy on the heap of exactly that size, so that the address sanitizer sees a read beyond its end.
inline bool survives(const std::string& file, const std::function<void(std::span<const std::byte>)>& parse) {
  const std::unique_ptr<std::byte[]> exact(new std::byte[file.size() + 1]);
  std::byte* start = exact.get() + 1;  // the last byte of the allocation is the last byte of the file
  std::memcpy(start, file.data(), file.size());
  try {
    parse({start, file.size()});
    return true;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(e.where()), std::string::npos);
    EXPECT_FALSE(e.where().empty());
    return false;
  }
}

inline void truncate_everywhere(const std::string& file, const std::function<void(std::span<const std::byte>)>& parse) {
  for (size_t size = 0; size < file.size(); ++size) EXPECT_FALSE(survives(file.substr(0, size), parse)) << size;
}

/// Flips bytes and writes telling integers at random places; every result is an Error or a valid file.
inline void damage_randomly(const std::string& file, int rounds,
                            const std::function<void(std::span<const std::byte>)>& parse) {
  const char* given = std::getenv("MSA_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "seed " << seed << " (set MSA_TEST_SEED to repeat)\n";
  std::mt19937_64 random(seed);
  const uint64_t telling[] = {0,
                              1,
                              7,
                              31,
                              0x7fffffff,
                              0xffffffff,
                              uint64_t{1} << 32,
                              uint64_t{1} << 61,
                              INT64_MAX,
                              uint64_t{1} << 63,
                              UINT64_MAX - 7,
                              UINT64_MAX,
                              file.size(),
                              file.size() + 1};
  int accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string broken = file;
    for (uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
      if (random() % 4 == 0 && broken.size() >= 8) {
        const uint64_t value = telling[random() % std::size(telling)];
        std::memcpy(broken.data() + random() % (broken.size() - 7), &value, 8);
      } else {
        broken[random() % broken.size()] = static_cast<char>(random());
      }
    }
    accepted += survives(broken, parse);
  }
  std::cout << accepted << " of " << rounds << " damaged files were still consistent\n";
}

}  // namespace msa
