#include "core/lru_cache.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace msa {
namespace {

TEST(LruCache, WhatWasUsedLongestAgoMakesRoom) {
  LruCache<std::string, int> cache(10);
  EXPECT_EQ(cache.find("a"), nullptr);
  cache.put("a", 1, 4);
  cache.put("b", 2, 4);
  ASSERT_NE(cache.find("a"), nullptr);
  cache.put("c", 3, 4);  // b makes room
  EXPECT_EQ(cache.find("b"), nullptr);
  EXPECT_EQ(*cache.find("a"), 1);
  EXPECT_EQ(*cache.find("c"), 3);
  EXPECT_EQ(cache.bytes(), 8);
  EXPECT_EQ(cache.size(), 2u);
  cache.put("d", 4, 10);  // needs it all
  EXPECT_EQ(cache.size(), 1u);
  EXPECT_EQ(*cache.find("d"), 4);
  cache.put("e", 5, 11);  // larger than all of it
  EXPECT_EQ(cache.find("e"), nullptr);
  EXPECT_EQ(*cache.find("d"), 4);
}

TEST(LruCache, AKeyIsKeptOnce) {
  LruCache<int, int> cache(10);
  cache.put(7, 1, 6);
  cache.put(7, 2, 3);
  EXPECT_EQ(*cache.find(7), 2);
  EXPECT_EQ(cache.bytes(), 3);
  EXPECT_EQ(cache.size(), 1u);
  cache.put(7, 3, 99);  // does not fit, and the old value is out of date
  EXPECT_EQ(cache.find(7), nullptr);
  EXPECT_EQ(cache.bytes(), 0);
}

TEST(LruCache, WhoUsesAValueKeepsIt) {
  LruCache<int, std::shared_ptr<int>> cache(1);
  cache.put(1, std::make_shared<int>(5), 1);
  const std::shared_ptr<int> mine = *cache.find(1);
  cache.put(2, std::make_shared<int>(6), 1);
  EXPECT_EQ(cache.find(1), nullptr);
  EXPECT_EQ(*mine, 5);
  EXPECT_EQ(mine.use_count(), 1);
}

TEST(LruCache, NothingFitsIntoNothing) {
  LruCache<int, int> cache(0);
  cache.put(1, 1, 1);
  EXPECT_EQ(cache.find(1), nullptr);
}

}  // namespace
}  // namespace msa
