#include "core/quant.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"

namespace msa {
namespace {

struct Golden {
  DType type;
  const char* block;  // hexadecimal
  std::vector<float> values;
};

const std::vector<Golden> kGoldens = {
#include "quant_golden.inc"
};

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

TEST(Quant, DecodesEveryTypeAsGgufDoes) {
  EXPECT_EQ(kGoldens.size(), 8u);
  for (const Golden& golden : kGoldens) {
    SCOPED_TRACE(traits(golden.type).name);
    std::string unaligned = from_hex(golden.block);
    unaligned.insert(unaligned.begin(), 0);
    std::vector<float> values(golden.values.size());
    dequantise_row(golden.type, unaligned.data() + 1, static_cast<int64_t>(values.size()), values.data());
    EXPECT_EQ(values, golden.values);
  }
}

TEST(Quant, EncodesQ8_0WithTheSameBitsAsGguf) {
  const float x[] = MSA_Q8_0_INPUT;
  std::string block(34, '\0');
  quantise_row(DType::kQ8_0, x, 32, block.data());
  EXPECT_EQ(block, from_hex(MSA_Q8_0_BLOCK));
}

/// Half away from zero, as std::round does: at the halves and beside them.
TEST(Quant, Q8_0RoundsAsTheCLibraryDoes) {
  for (int k = -127; k < 127; ++k) {
    const float half = static_cast<float>(k) + 0.5f;
    std::vector<float> x(32, 0.0f);
    x[0] = 127.0f;  // a scale of 1
    x[1] = half;
    x[2] = std::nextafter(half, -1000.0f);
    x[3] = std::nextafter(half, 1000.0f);
    x[4] = static_cast<float>(k);
    std::string block(34, '\0');
    quantise_row(DType::kQ8_0, x.data(), 32, block.data());
    for (size_t i = 0; i < 5; ++i) EXPECT_EQ(static_cast<int8_t>(block[2 + i]), std::round(x[i])) << x[i];
  }
}

/// Word by word, number by number: any bits, NaN as 0.
TEST(Quant, Q8_0IsThePlainLoop) {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::vector<float> x(32);
    for (float& v : x) {
      const auto bits = static_cast<uint32_t>(random());
      v = round % 2 == 0 ? std::bit_cast<float>(bits) : static_cast<float>(bits % 255) - 127.5f;
    }
    float largest = 0;
    for (const float v : x) largest = std::max(largest, std::fabs(v));  // a NaN never wins
    const float scale = largest / 127.0f, inverse = scale > 0 ? 1.0f / scale : 0.0f;
    BlockQ8_0 want, got;
    want.scale = float_to_half(scale);
    for (size_t i = 0; i < 32; ++i) {
      const float number = x[i] * inverse;
      want.quants[i] =
          std::isnan(number) ? int8_t{0} : static_cast<int8_t>(std::round(std::clamp(number, -127.f, 127.f)));
    }
    quantise_row(DType::kQ8_0, x.data(), 32, &got);
    ASSERT_EQ(std::memcmp(&got, &want, sizeof(want)), 0) << "round " << round;
  }
}

TEST(Quant, EncodesPlainTypesBackToTheSameBits) {
  for (const Golden& golden : kGoldens) {
    if (is_quantised(golden.type)) continue;
    std::string row = from_hex(golden.block);
    const std::string expected = row;
    row.assign(row.size(), '\0');
    quantise_row(golden.type, golden.values.data(), static_cast<int64_t>(golden.values.size()), row.data());
    EXPECT_EQ(row, expected);
  }
}

TEST(Quant, Q8_0SurvivesZerosTinyAndBrokenValues) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const float x : {0.0f, 1e-44f, nan, inf, -inf, std::numeric_limits<float>::max()}) {
    std::vector<float> values(64, x);
    values[3] = 0.5f;
    std::string row(68, '\0');
    quantise_row(DType::kQ8_0, values.data(), 64, row.data());
    dequantise_row(DType::kQ8_0, row.data(), 64, values.data());
  }
}

}  // namespace
}  // namespace msa
