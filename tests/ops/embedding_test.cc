#include "ops/embedding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/quant.h"
#include "ops/linear.h"

namespace msa {
namespace {

constexpr unsigned kSeed = 7;

/// A table [rows, columns] in `type`, made from random floats; only types that quantise_row can write.
Buffer random_table(DType type, int64_t rows, int64_t columns, Tensor& view) {
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal;
  Buffer memory;
  view = memory.tensor(type, {rows, columns});
  std::vector<float> row(static_cast<size_t>(columns));
  for (int64_t r = 0; r < rows; ++r) {
    for (float& value : row) value = normal(random);
    quantise_row(type, row.data(), columns, view.row<void>(r));
  }
  return memory;
}

class Embedding : public testing::TestWithParam<DType> {};

TEST_P(Embedding, CopiesTheRowsOfTheTable) {
  Context context(2);
  Tensor table;
  const Buffer memory = random_table(GetParam(), 50, 96, table);
  std::vector<int32_t> ids{0, 49, 7, 7, 23};
  for (int i = 0; i < 100; ++i) ids.push_back((i * 31) % 50);
  const auto n = static_cast<int64_t>(ids.size());
  std::vector<float> storage(static_cast<size_t>(n) * 100, std::numeric_limits<float>::quiet_NaN());
  const Tensor out = Tensor(storage.data(), DType::kF32, {n, 100}).slice_columns(0, 96);
  embedding(context, table, ids, out);
  std::vector<float> expected(96);
  for (int64_t t = 0; t < n; ++t) {
    dequantise_row(GetParam(), table.row<void>(ids[static_cast<size_t>(t)]), 96, expected.data());
    for (int64_t i = 0; i < 96; ++i) ASSERT_EQ(out.row<float>(t)[i], expected[static_cast<size_t>(i)]) << t << " " << i;
    ASSERT_TRUE(std::isnan(out.row<float>(t)[96])) << "wrote past row " << t;
  }
}

TEST_P(Embedding, DequantisesARangeOfRows) {
  Context context(2);
  Tensor table;
  const Buffer memory = random_table(GetParam(), 50, 96, table);
  std::vector<float> storage(static_cast<size_t>(40 * 96), std::numeric_limits<float>::quiet_NaN());
  const Tensor out(storage.data(), DType::kF32, {40, 96});
  dequantise_rows(context, table, 5, 45, out);
  std::vector<float> expected(96);
  for (int64_t r = 0; r < 40; ++r) {
    dequantise_row(GetParam(), table.row<void>(r + 5), 96, expected.data());
    for (int64_t i = 0; i < 96; ++i) ASSERT_EQ(out.row<float>(r)[i], expected[static_cast<size_t>(i)]) << r << " " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Embedding, testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0),
                         [](const auto& test) { return traits(test.param).name; });

TEST(EmbeddingDeath, RefusesIdsOutsideTheTable) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Context context(1);
  std::vector<float> table(8), out(4);
  const Tensor t(table.data(), DType::kF32, {2, 4});
  const Tensor y(out.data(), DType::kF32, {1, 4});
  for (const int32_t id : {-1, 2}) EXPECT_DEATH(embedding(context, t, std::span(&id, 1), y), "id >= 0");
}

TEST(EmbeddingTest, TakesNoIds) {
  Context context(1);
  std::vector<float> table(8), out(4);
  embedding(context, Tensor(table.data(), DType::kF32, {2, 4}), {}, Tensor(out.data(), DType::kF32, {0, 4}));
}

}  // namespace
}  // namespace msa
