#include "ops/embedding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "../device_testing.h"
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

class Rows : public DeviceTest {};

TEST_P(Rows, EmbeddingAndGatherCopyTheRowsNamed) {
  Context host(2);
  Context& context = is_cuda() ? cuda_context() : host;
  const std::vector<int32_t> ids{0, 49, 7, 7, 23};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    Tensor table;
    const Buffer memory = random_table(type, 50, 97, table);
    std::vector<float> expected(97), embedded(5 * 97, std::numeric_limits<float>::quiet_NaN());
    std::vector<char> gathered(5 * 97 * 4);
    const Tensor rows(gathered.data(), type, {5, 97});
    Buffer id_memory;
    {
      OnDevice on(context);
      const Indices indices = upload(context, ids, id_memory);
      const Tensor from = on.in(table);
      embedding(context, from, indices, on.out(Tensor(embedded.data(), DType::kF32, {5, 97})));
      gather_rows(context, from, indices, on.out(rows));
    }
    for (size_t t = 0; t < ids.size(); ++t) {
      dequantise_row(type, table.row<void>(ids[t]), 97, expected.data());
      for (size_t i = 0; i < 97; ++i) ASSERT_EQ(embedded[t * 97 + i], expected[i]) << t << " " << i;
      ASSERT_EQ(0, std::memcmp(rows.row<char>(static_cast<int64_t>(t)), table.row<char>(ids[t]),
                               static_cast<size_t>(table.row_bytes)));
    }
  }
}

MSA_TEST_ON_DEVICES(Rows);

TEST(EmbeddingDeath, RefusesIdsOutsideTheTable) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Context context(1);
  std::vector<float> table(8), out(4);
  const Tensor t(table.data(), DType::kF32, {2, 4});
  const Tensor y(out.data(), DType::kF32, {1, 4});
  for (const int32_t id : {-1, 2})
    EXPECT_DEATH(embedding(context, t, std::span<const int32_t>(&id, 1), y), "all_below");
}

TEST(EmbeddingTest, TakesNoIds) {
  Context context(1);
  std::vector<float> table(8), out(4);
  embedding(context, Tensor(table.data(), DType::kF32, {2, 4}), {}, Tensor(out.data(), DType::kF32, {0, 4}));
}

}  // namespace
}  // namespace msa
