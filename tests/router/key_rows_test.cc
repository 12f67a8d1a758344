// Which keys lie where, and rows of keys in host memory: what of the device's keys needs no device.
#include "router/key_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "../bank/bank_testing.h"
#include "ops/routing_quantise.h"
#include "router/key_placement.h"

namespace msa {
namespace {

using testing::add;
using testing::random_batch;

TEST(PlaceKeys, WithinTheBudget) {
  const KeySizes sizes{1000, 18, 1024};
  const int64_t exact = 18 * 2048, int8 = 18 * 1040, int4 = 18 * 528;  // a row of all layers
  const auto placed = [&](KeyFormat format, int64_t budget) { return place_keys(format, sizes, budget); };
  EXPECT_EQ(placed(KeyFormat::kAuto, 1000 * exact), (KeyPlacement{1000, 0, 8}));
  EXPECT_EQ(placed(KeyFormat::kAuto, 1000 * exact - 1), (KeyPlacement{0, 1000, 8}));
  EXPECT_EQ(placed(KeyFormat::kAuto, 1000 * int8 - 1), (KeyPlacement{0, 1000, 4}));
  EXPECT_EQ(placed(KeyFormat::kAuto, 1000 * int4 - 1), (KeyPlacement{0, 999, 4}));
  EXPECT_EQ(placed(KeyFormat::kBF16, 1000 * exact - 1), (KeyPlacement{999, 0, 8}));
  EXPECT_EQ(placed(KeyFormat::kBF16, exact - 1), (KeyPlacement{0, 0, 8}));
  EXPECT_EQ(placed(KeyFormat::kInt8, 1000 * (exact + int8)), (KeyPlacement{1000, 1000, 8}));
  EXPECT_EQ(placed(KeyFormat::kInt8, 1000 * (exact + int8) - 1), (KeyPlacement{0, 1000, 8}));
  EXPECT_EQ(placed(KeyFormat::kInt8, 10 * int8), (KeyPlacement{0, 10, 8}));
  EXPECT_EQ(placed(KeyFormat::kInt4, 1000 * (exact + int4)), (KeyPlacement{1000, 1000, 4}));
  EXPECT_EQ(placed(KeyFormat::kInt4, 1000 * int4), (KeyPlacement{0, 1000, 4}));
  EXPECT_EQ(placed(KeyFormat::kInt8, -5), (KeyPlacement{0, 0, 8}));
  EXPECT_EQ(place_keys(KeyFormat::kInt4, {1000, 1, 96}, 112 * 1000), (KeyPlacement{0, 1000, 8}));  // no multiple of 64
  EXPECT_EQ(place_keys(KeyFormat::kAuto, {0, 18, 1024}, 100), (KeyPlacement{0, 0, 8}));
}

TEST(PlaceKeys, Described) {
  const KeySizes sizes{1000, 18, 1024};
  EXPECT_EQ(describe({1000, 1000, 8}, sizes), "int8 routing keys on the GPU, bf16 keys too");
  EXPECT_EQ(describe({0, 1000, 4}, sizes), "int4 routing keys on the GPU, bf16 keys in host memory");
  EXPECT_EQ(describe({250, 0, 8}, sizes),
            "bf16 routing keys, 25 % of them on the GPU; the rest is copied there in every scan");
  EXPECT_THROW(parse_key_format("int9"), Error);
}

TEST(DeviceOptions, ContentGetsAnEighth) {
  EXPECT_EQ(DeviceOptions::content_share(800), 100);
  EXPECT_EQ(DeviceOptions::content_share(int64_t{100} << 30), int64_t{1} << 30);
}

class KeyRowsTest : public ::testing::Test {
 protected:
  KeyRowsTest() : bank_(Bank::in_memory(testing::small_shape())) { grow({30, 1, 200}); }
  void grow(std::initializer_list<int64_t> counts) {
    for (const int64_t count : counts) ASSERT_TRUE(add(*bank_, random_batch(*bank_, count, random_)).committed());
  }
  /// All rows of a layer, the plain way.
  std::vector<char> keys_of(int layer) const {
    std::vector<char> out;
    for (const auto& segment : bank_->snapshot()->segments) {
      const Tensor keys = segment->keys(layer);
      out.insert(out.end(), keys.as<char>(), keys.as<char>() + keys.bytes());
    }
    return out;
  }

  std::mt19937 random_{7};
  std::unique_ptr<Bank> bank_;
  ThreadPool pool_{2};
};

TEST_F(KeyRowsTest, RangesAndLists) {
  const KeyRows rows(bank_->snapshot());
  const std::vector<char> all = keys_of(1);
  const auto bytes = static_cast<size_t>(bank_->shape().row_bytes());
  ASSERT_EQ(all.size(), static_cast<size_t>(rows.n_rows()) * bytes);
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, rows.n_rows()}, {0, 0}, {3, 90}, {60, 201}}) {
    std::vector<char> found(static_cast<size_t>(end - begin) * bytes);
    rows.copy(pool_, 1, begin, end, found.data());
    EXPECT_TRUE(std::equal(found.begin(), found.end(), all.begin() + begin * static_cast<int64_t>(bytes)));
  }
  std::vector<int32_t> list;
  for (int32_t row = 2; row < rows.n_rows(); row += 3) list.push_back(row);
  std::vector<char> found(list.size() * bytes);
  rows.gather(pool_, 1, list, found.data());
  for (size_t i = 0; i < list.size(); ++i) {
    ASSERT_EQ(0, std::memcmp(&found[i * bytes], &all[static_cast<size_t>(list[i]) * bytes], bytes)) << i;
  }
}

TEST_F(KeyRowsTest, SlotsOfTheLiving) {
  for (const DocumentId dead : {1, 31, 40}) ASSERT_TRUE(bank_->remove(dead));
  const auto snapshot = bank_->snapshot();
  const KeyRows rows(snapshot);
  EXPECT_EQ(rows.n_slots(), 231);
  const std::vector<int32_t> slots = rows.slots();
  ASSERT_EQ(static_cast<int64_t>(slots.size()), rows.n_rows());
  const std::vector<int32_t> slot_starts = rows.slot_starts();
  ASSERT_EQ(slot_starts.size(), 232u);
  EXPECT_EQ(slot_starts.back(), rows.n_rows());
  size_t row = 0;
  int32_t slot = 0;
  for (size_t s = 0; s < snapshot->segments.size(); ++s) {
    const auto starts = snapshot->segments[s]->chunk_starts();
    for (size_t i = 0; i + 1 < starts.size(); ++i, ++slot) {
      ASSERT_EQ(slot_starts[static_cast<size_t>(slot)], static_cast<int32_t>(row));
      for (int64_t c = starts[i]; c < starts[i + 1]; ++c) {
        ASSERT_EQ(slots[row++], snapshot->live[s][i] != 0 ? slot : -1);
      }
    }
  }
}

/// Removing moves nothing, adding appends; another bank shares nothing.
TEST_F(KeyRowsTest, CommonRows) {
  const auto before = bank_->snapshot();
  const int64_t rows = KeyRows(before).n_rows();
  EXPECT_EQ(KeyRows::common_rows(*before, *before), rows);
  ASSERT_TRUE(bank_->remove(5));
  EXPECT_EQ(KeyRows::common_rows(*before, *bank_->snapshot()), rows);
  grow({4});
  const auto after = bank_->snapshot();
  EXPECT_GT(KeyRows(after).n_rows(), rows);
  const int64_t common = KeyRows::common_rows(*before, *after);
  EXPECT_GT(common, 0);  // small segments at the end may have been merged
  EXPECT_LE(common, rows);
  EXPECT_EQ(common, KeyRows::common_rows(*after, *before));
  const auto other = Bank::in_memory(testing::small_shape());
  ASSERT_TRUE(add(*other, random_batch(*other, 30, random_)).committed());
  EXPECT_EQ(KeyRows::common_rows(*before, *other->snapshot()), 0);
}

}  // namespace
}  // namespace msa
