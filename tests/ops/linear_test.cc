#include "ops/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../device_testing.h"
#include "core/cpu.h"
#include "core/quant.h"
#include "ops/linear_quantised_kernels.h"
#include "ops/reference_linear.h"

namespace msa {
namespace {

constexpr unsigned kSeed = 20240601;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Offsets of the half precision scales in a block; -1 where there is none.
struct ScaleOffsets {
  int first, second;
};

ScaleOffsets scale_offsets(DType type) {
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ4_K: return {0, 2};
    case DType::kQ6_K: return {208, -1};
    default: return {0, -1};
  }
}

/// Rows in memory of their own, further apart than they are long, with NaN (all ones) between them and in them.
struct Rows {
  std::vector<char> memory;
  Tensor view;

  Rows(DType type, int64_t rows, int64_t columns, int64_t gap) {
    const int64_t bytes = Tensor(nullptr, type, {rows, columns}).dense_row_bytes();
    const int64_t stride = bytes + gap * traits(type).block_bytes;
    memory.assign(static_cast<size_t>(rows * stride) + 64, static_cast<char>(0xff));
    view = Tensor(memory.data(), type, {rows, columns});
    view.row_bytes = stride;
  }
};

Rows random_rows(DType type, int64_t rows, int64_t columns, int64_t gap, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Rows r(type, rows, columns, gap);
  std::vector<float> row(static_cast<size_t>(columns));
  const bool writable = !is_quantised(type) || type == DType::kQ8_0;
  const DTypeTraits t = traits(type);
  for (int64_t i = 0; i < rows; ++i) {
    if (writable) {
      for (float& value : row) value = normal(random);
      quantise_row(type, row.data(), columns, r.view.row<void>(i));
      continue;
    }
    for (int64_t b = 0; b < columns / t.block_elements; ++b) {  // any bits are a valid block, given sane scales
      char* block = r.view.row<char>(i) + b * t.block_bytes;
      for (int64_t k = 0; k < t.block_bytes; ++k) block[k] = static_cast<char>(random());
      const auto put = [&](int offset, float value) {
        const uint16_t half = float_to_half(value);
        if (offset >= 0) std::memcpy(block + offset, &half, 2);
      };
      put(scale_offsets(type).first, 0.01f + 0.01f * std::abs(normal(random)));
      put(scale_offsets(type).second, 0.05f * normal(random));
    }
  }
  return r;
}

double relative_error(const Tensor& y, const std::vector<double>& expected) {
  double difference = 0;
  double size = 1e-30;
  for (int64_t t = 0; t < y.rows(); ++t) {
    for (int64_t o = 0; o < y.dim(1); ++o) {
      const double e = expected[static_cast<size_t>(t * y.dim(1) + o)];
      difference += std::pow(reference_element(y, t, o) - e, 2);
      size += e * e;
    }
  }
  return std::sqrt(difference / size);  // NaN where any element is
}

void expect_gaps_untouched(const Rows& rows) {
  for (int64_t t = 0; t < rows.view.rows(); ++t) {
    for (int64_t i = rows.view.dense_row_bytes(); i < rows.view.row_bytes; ++i) {
      ASSERT_EQ(rows.view.row<char>(t)[i], static_cast<char>(0xff)) << "wrote past row " << t;
    }
  }
}

struct Case {
  const char* name;
  DType weight;
  Linear::Options options;
  int64_t in, out;
  double tolerance;  // of the whole product, relative to its Euclidean norm
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name << " " << c.in << " -> " << c.out; }

class LinearTest : public testing::TestWithParam<Case> {};

void check_product(Context& context, const Linear& linear, const Rows& x, std::vector<double> expected, DType y_type,
                   bool accumulate) {
  const double tolerance = LinearTest::GetParam().tolerance;
  const int64_t T = x.view.rows();
  const int64_t out = linear.out_features();
  SCOPED_TRACE("T " + std::to_string(T) + " x " + traits(x.view.dtype).name + " y " + traits(y_type).name +
               (accumulate ? " accumulate" : "") + ", seed " + std::to_string(kSeed));
  Rows y(y_type, T, out, 3);  // NaN
  if (accumulate) {
    y = random_rows(y_type, T, out, 3, kSeed);
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t o = 0; o < out; ++o) expected[static_cast<size_t>(t * out + o)] += y.view.row<float>(t)[o];
    }
  }
  linear.forward(context, x.view, y.view, accumulate);
  const double rounding = y_type == DType::kBF16 ? 2.5e-3 : 0;  // of y itself: half a unit of 8 bits, at most 2^-9
  EXPECT_LE(relative_error(y.view, expected), tolerance + rounding);
  expect_gaps_untouched(y);
}

TEST_P(LinearTest, AgreesWithTheReference) {
  const Case& c = GetParam();
  Context context(2);
  const Rows weight = random_rows(c.weight, c.out, c.in, 1, kSeed);
  const Linear linear(context, weight.view, c.options);
  EXPECT_EQ(linear.in_features(), c.in);
  EXPECT_EQ(linear.out_features(), c.out);
  for (const int64_t T : {1, 2, 3, 7, 8, 16, 33, 64, 100, 513}) {
    for (const DType type : {DType::kF32, DType::kBF16}) {
      const Rows x = random_rows(type, T, c.in, 5, kSeed + static_cast<unsigned>(T));
      const std::vector<double> expected = reference_linear(x.view, weight.view);
      for (const DType y : {DType::kF32, DType::kBF16}) check_product(context, linear, x, expected, y, false);
      check_product(context, linear, x, expected, DType::kF32, true);
    }
  }
}

TEST_P(LinearTest, ARowDoesNotDependOnThreadsOrNeighbours) {
  const Case& c = GetParam();
  const Rows weight = random_rows(c.weight, c.out, c.in, 0, kSeed);
  const Rows x = random_rows(DType::kF32, 8, c.in, 0, kSeed);
  std::vector<float> expected;
  for (const int threads : {1, 2, 3}) {
    Context context(threads);
    const Linear linear(context, weight.view, c.options);
    for (const int64_t T : {1, 2, 5, 8}) {
      Rows y(DType::kF32, T, c.out, 0);
      linear.forward(context, x.view.slice_rows(0, T), y.view);
      if (expected.empty()) expected.assign(y.view.row<float>(0), y.view.row<float>(0) + c.out);
      if (T > 1 && c.options.decode == DecodeFormat::kSame) continue;  // oneDNN may order its sums otherwise
      for (int64_t o = 0; o < c.out; ++o) {
        ASSERT_EQ(y.view.row<float>(0)[o], expected[static_cast<size_t>(o)]) << threads << " threads, T " << T;
      }
    }
  }
}

constexpr Linear::Options kF32{LinearFormat::kF32, DecodeFormat::kSame};
constexpr Linear::Options kBF16{LinearFormat::kBF16, DecodeFormat::kSame};
constexpr Linear::Options kInt8{LinearFormat::kInt8, DecodeFormat::kSame};
constexpr Linear::Options kInt8File{LinearFormat::kInt8, DecodeFormat::kFile};
constexpr Linear::Options kF32Q8{LinearFormat::kF32, DecodeFormat::kQ8_0};
constexpr Linear::Options kF32File{LinearFormat::kF32, DecodeFormat::kFile};
constexpr Linear::Options kBF16File{LinearFormat::kBF16, DecodeFormat::kFile};

/// The same products on a GPU: what its formats, shapes, strides and alignments can be.
class LinearCuda : public DeviceTest {
 protected:
  static void check(const Case& c, DType x_type, DType y_type, int64_t T, bool accumulate);
};

void LinearCuda::check(const Case& c, DType x_type, DType y_type, int64_t T, bool accumulate) {
  SCOPED_TRACE(std::string(c.name) + " T " + std::to_string(T) + " x " + traits(x_type).name + " y " +
               traits(y_type).name + (accumulate ? " accumulate" : "") + ", seed " + std::to_string(kSeed));
  Context& context = cuda_context();
  const Rows weight = random_rows(c.weight, c.out, c.in, 1, kSeed);
  const Rows x = random_rows(x_type, T, c.in, c.in % 8 == 0 ? 8 : 5, kSeed + static_cast<unsigned>(T));
  std::vector<double> expected = reference_linear(x.view, weight.view);
  Rows y(y_type, T, c.out, 3);  // NaN
  if (accumulate) {
    y = random_rows(y_type, T, c.out, 3, kSeed);
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t o = 0; o < c.out; ++o) expected[static_cast<size_t>(t * c.out + o)] += y.view.row<float>(t)[o];
    }
  }
  const Linear linear(context, weight.view, c.options);
  {
    OnDevice on(context);
    linear.forward(context, on.in(x.view), on.out(y.view), accumulate);
  }
  EXPECT_LE(relative_error(y.view, expected), c.tolerance + (y_type == DType::kBF16 ? 2.5e-3 : 0));
  expect_gaps_untouched(y);
}

TEST_P(LinearCuda, AgreesWithTheReference) {
  const Case cases[] = {
      {"F32", DType::kF32, kF32, 320, 192, 1e-5},           {"F32Odd", DType::kF32, kF32, 77, 131, 1e-5},
      {"F32OfQ4_1", DType::kQ4_1, kF32File, 96, 576, 1e-5}, {"BF16", DType::kBF16, kBF16, 320, 192, 1e-2},
      {"BF16Model", DType::kBF16, kBF16, 576, 960, 1e-2},   {"BF16Odd", DType::kF32, kBF16, 77, 131, 1e-2},
      {"BF16Tiny", DType::kF32, kBF16, 1, 1, 1e-2},         {"BF16OfQ8_0", DType::kQ8_0, kBF16File, 288, 200, 1e-2},
      {"BF16OfInt8", DType::kF32, kInt8, 64, 64, 1e-2}};
  for (const Case& c : cases) {
    for (const int64_t T : {1, 2, 3, 7, 8, 9, 33, 100, 513}) {
      for (const DType x : {DType::kF32, DType::kBF16}) {
        for (const DType y : {DType::kF32, DType::kBF16}) check(c, x, y, T, false);
        check(c, x, DType::kF32, T, true);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(On, LinearCuda, testing::Values(DeviceType::kCuda), device_test_name);

INSTANTIATE_TEST_SUITE_P(
    Formats, LinearTest,
    testing::Values(
        Case{"F32", DType::kF32, kF32, 320, 192, 1e-5}, Case{"F32Odd", DType::kF32, kF32, 77, 131, 1e-5},
        Case{"F32Tiny", DType::kF32, kF32, 1, 1, 1e-5}, Case{"F32Narrow", DType::kF32, kF32, 96, 48, 1e-5},
        Case{"F32OfF16", DType::kF16, kF32, 64, 100, 1e-5}, Case{"F32OfQ4_1", DType::kQ4_1, kF32, 96, 576, 1e-5},
        Case{"BF16", DType::kBF16, kBF16, 320, 192, 1e-2}, Case{"BF16Odd", DType::kF32, kBF16, 77, 131, 1e-2},
        Case{"BF16Tiny", DType::kF32, kBF16, 1, 1, 1e-2}, Case{"BF16Narrow", DType::kF32, kBF16, 33, 48, 1e-2},
        Case{"BF16Wide", DType::kBF16, kBF16, 64, 1100, 1e-2}, Case{"Int8", DType::kF32, kInt8, 320, 192, 1.5e-2},
        Case{"Int8Odd", DType::kBF16, kInt8, 77, 131, 1.5e-2}, Case{"Int8Tiny", DType::kF32, kInt8, 1, 1, 1.5e-2},
        Case{"Int8FileQ4_1", DType::kQ4_1, kInt8File, 96, 200, 1.5e-2}, Case{"Q8", DType::kF32, kF32Q8, 320, 192, 1e-2},
        Case{"Q8Odd", DType::kF32, kF32Q8, 32, 37, 1e-2}, Case{"Q8NotABlock", DType::kF32, kF32Q8, 77, 64, 1e-2},
        Case{"Q8OfQ4_1", DType::kQ4_1, kF32Q8, 96, 64, 1e-2}, Case{"FileQ8_0", DType::kQ8_0, kBF16File, 288, 200, 1e-2},
        Case{"FileQ4_0", DType::kQ4_0, kF32File, 288, 200, 1e-2},
        Case{"FileQ4_1", DType::kQ4_1, kBF16File, 288, 200, 1e-2},
        Case{"FileQ5_0", DType::kQ5_0, kF32File, 96, 50, 1e-2}, Case{"FileQ4_K", DType::kQ4_K, kF32File, 512, 50, 1e-2},
        Case{"FileQ6_K", DType::kQ6_K, kF32File, 512, 50, 1e-2},
        Case{"FileOfPlainType", DType::kBF16, kF32File, 96, 50, 1e-5}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(Linear, TwoContextsShareOneWeight) {
  Context context(2);
  const Rows weight = random_rows(DType::kQ4_1, 300, 64, 0, kSeed);
  for (const Linear::Options options : {kF32, kBF16, kInt8, kF32File}) {
    const Linear linear(context, weight.view, options);
    const auto run = [&] {
      Context own(2);
      for (int round = 0; round < 20; ++round) {
        for (const int64_t T : {1, 6, 30, 200}) {
          const Rows x = random_rows(DType::kF32, T, 64, 0, kSeed);
          Rows y(DType::kF32, T, 300, 0);
          linear.forward(own, x.view, y.view);
          ASSERT_LE(relative_error(y.view, reference_linear(x.view, weight.view)), 1.5e-2);
        }
      }
    };
    std::thread other(run);
    run();
    other.join();
  }
}

TEST(Linear, CopiesShareTheWeightAndNoRowsAreFine) {
  Context context(1);
  Linear copy;
  EXPECT_TRUE(copy.empty());
  EXPECT_EQ(copy.in_features(), 0);
  {
    const Rows weight = random_rows(DType::kF32, 10, 32, 0, kSeed);
    copy = Linear(context, weight.view, kF32);
  }
  EXPECT_EQ(copy.out_features(), 10);
  float nothing = 0;
  copy.forward(context, Tensor(&nothing, DType::kF32, {0, 32}), Tensor(&nothing, DType::kF32, {0, 10}));
}

TEST(Linear, RefusesWhatIsNoMatrix) {
  Context context(1);
  std::vector<float> data(64);
  EXPECT_THROW(Linear(context, Tensor(data.data(), DType::kF32, {64}), kF32), Error);
  EXPECT_THROW(Linear(context, Tensor(data.data(), DType::kF32, {0, 64}), kF32), Error);
  EXPECT_THROW(Linear(context, Tensor(data.data(), DType::kQ8_0, {1, 33}), kF32File), Error);
}

TEST(Linear, ANanInXShowsInItsRowOnly) {
  Context context(2);
  const Rows weight = random_rows(DType::kQ4_1, 100, 96, 0, kSeed);
  for (const Linear::Options options : {kF32, kBF16, kInt8, kF32File}) {
    const Linear linear(context, weight.view, options);
    Rows x = random_rows(DType::kF32, 3, 96, 0, kSeed);
    x.view.row<float>(1)[40] = kNaN;
    Rows y(DType::kF32, 3, 100, 0);
    linear.forward(context, x.view, y.view);
    for (int64_t o = 0; o < 100; ++o) {
      EXPECT_TRUE(std::isfinite(y.view.row<float>(0)[o]));
      EXPECT_TRUE(std::isnan(y.view.row<float>(1)[o]));
      EXPECT_TRUE(std::isfinite(y.view.row<float>(2)[o]));
    }
  }
}

TEST(QuantiseActivations, StaysWithinHalfAStepAtEveryMagnitude) {
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal;
  for (const float magnitude : {0.0f, 1e-40f, 1e-30f, 1e-3f, 1.0f, 1e4f, 1e37f}) {
    float x[32];
    float amax = 0;
    for (float& v : x) {
      v = magnitude * normal(random);
      amax = std::max(amax, std::abs(v));
    }
    ActivationBlock block;
    quantise_activations(x, 1, &block);
    int sum = 0;
    for (int i = 0; i < 32; ++i) {
      sum += block.quants[i];
      EXPECT_LE(std::abs(block.scale * static_cast<float>(block.quants[i]) - x[i]), amax / 127 * 0.5001f + 1e-35f);
    }
    EXPECT_EQ(block.minus_offset, -128 * sum);
  }
}

// Extremes of every byte: where 16 bit sums or saturating instructions would show.
TEST(PanelKernels, AgreeWithThePortableOneAtTheExtremes) {
  constexpr int64_t kBlocks = 3;
  std::mt19937 random(kSeed);
  const PanelKernels* last = available_panel_kernels();
  while (last[1].name != nullptr) ++last;
  ASSERT_STREQ(last->name, "portable");
  std::vector<NibblePanelBlock> nibble_panel(kBlocks);
  std::vector<BytePanelBlock> byte_panel(kBlocks);
  for (int64_t b = 0; b < kBlocks; ++b) {
    for (int64_t o = 0; o < kPanelRows; ++o) {
      nibble_panel[b].scales[o] = byte_panel[b].scales[o] =
          float_to_half(0.01f + static_cast<float>(random() % 100) * 1e-3f);
      nibble_panel[b].minima[o] = float_to_half(static_cast<float>(random() % 100) * -1e-2f);
    }
  }
  for (const int fill : {0x00, 0xff, 0x80, 0x7f, -1}) {
    for (const int value : {-127, 127, 0, -1}) {
      const auto next = [&] { return static_cast<uint8_t>(fill < 0 ? random() : static_cast<unsigned>(fill)); };
      for (int64_t b = 0; b < kBlocks; ++b) {
        for (auto& line : nibble_panel[b].quants) std::generate(line, line + 64, next);
        for (auto& line : byte_panel[b].quants) std::generate(line, line + 64, next);
      }
      std::vector<float> x(static_cast<size_t>(kQuantRowsPerPass * kBlocks * kQuantBlock));
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = value == -1 ? static_cast<float>(random() % 255) - 127 : static_cast<float>(value);
      }
      std::vector<ActivationBlock> blocks(kQuantRowsPerPass * kBlocks);
      quantise_activations(x.data(), kQuantRowsPerPass * kBlocks, blocks.data());
      const ActivationBlock* rows[kQuantRowsPerPass];
      for (int r = 0; r < kQuantRowsPerPass; ++r) rows[r] = blocks.data() + r * kBlocks;
      for (int n = 1; n <= kQuantRowsPerPass; ++n) {
        for (const PanelKernels* k = available_panel_kernels(); k != last; ++k) {
          std::vector<float> a(static_cast<size_t>(n * kPanelRows), kNaN), b = a;
          PanelProduct p{nullptr, rows, kBlocks, a.data(), n};
          for (const bool nibbles : {true, false}) {
            p.panel = nibbles ? static_cast<const void*>(nibble_panel.data()) : byte_panel.data();
            p.sums = a.data();
            (nibbles ? k->nibbles : k->bytes)(p);
            p.sums = b.data();
            (nibbles ? last->nibbles : last->bytes)(p);
            for (size_t i = 0; i < a.size(); ++i) {
              ASSERT_NEAR(a[i], b[i], 1e-5 * std::abs(b[i]) + 1e-2) << k->name << " fill " << fill << " x " << value;
            }
          }
        }
      }
    }
  }
}

TEST(DefaultLinearFormat, FollowsTheProcessor) {
  const CpuFeatures& cpu = cpu_features();
  EXPECT_EQ(default_linear_format() == LinearFormat::kBF16, cpu.avx512_bf16 || cpu.amx_bf16);
}

}  // namespace
}  // namespace msa
