// What the tests of the ops share: random tensors with strided rows, and comparison with the scalar reference.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../device_testing.h"
#include "core/buffer.h"
#include "core/context.h"
#include "hwy/targets.h"
#include "ops/reference.h"

namespace msa {

/// Calls f with every instruction set that the kernels are built for and this processor has.
template <class F>
void for_each_instruction_set(const F& f) {
  for (const int64_t target : {HWY_AVX3, HWY_AVX2, HWY_SCALAR}) {
    if ((hwy::SupportedTargets() & target) == 0 && target != HWY_SCALAR) continue;
    const testing::ScopedTrace trace(__FILE__, __LINE__, std::string("on ") + hwy::TargetName(target));
    hwy::GetChosenTarget().Update(target);
    f();
  }
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

/// Calls f(context) with every setting of the device that a result must not depend on: threads and instruction sets of
/// the CPU, nothing on CUDA.
template <class F>
void for_each_setting(Device device, const F& f) {
  if (on_cuda(device)) return f(cuda_context());
  for_each_instruction_set([&] {
    for (const int threads : {1, 2, 3}) {
      Context context(threads);
      f(context);
    }
  });
}

/// Draws the tensors of one test; the seed is part of every failure message.
class Draw {
 public:
  explicit Draw(uint32_t seed) : engine_(seed), trace_(__FILE__, __LINE__, "seed " + std::to_string(seed)) {}

  /// Normal values times `scale`; rows lie `gap` elements apart, and everything outside them is NaN.
  Tensor normal(DType dtype, std::initializer_list<int64_t> dims, float scale = 1, int64_t gap = 0) {
    const Tensor t = nan(dtype, dims, gap);
    std::normal_distribution<float> value(0, scale);
    for (int64_t r = 0; r < t.rows(); ++r) {
      for (int64_t i = 0; i < t.row_elements(); ++i) reference::put(t, r, i, static_cast<double>(value(engine_)));
    }
    return t;
  }

  /// An output: NaN everywhere, so that an element that nobody writes shows.
  Tensor nan(DType dtype, std::initializer_list<int64_t> dims, int64_t gap = 0) {
    Tensor t(nullptr, dtype, dims);
    t.row_bytes += gap * traits(dtype).block_bytes;
    const size_t bytes = static_cast<size_t>(t.row_bytes * t.rows());
    buffers_.push_back(std::make_unique<Buffer>(bytes + 64));
    t.data = buffers_.back()->data();
    std::memset(t.data, 0xff, bytes + 64);
    return t;
  }

  /// The same content in memory of its own, for ops that work in place.
  Tensor copy(const Tensor& from) {
    buffers_.push_back(std::make_unique<Buffer>(static_cast<size_t>(from.row_bytes * from.rows()) + 64));
    Tensor t = from;
    t.data = buffers_.back()->data();
    std::memcpy(t.data, from.data, static_cast<size_t>(from.row_bytes * from.rows()));
    return t;
  }

  std::mt19937& engine() { return engine_; }

 private:
  std::mt19937 engine_;
  testing::ScopedTrace trace_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

/// |actual - expected| <= absolute + relative * |expected| for every element; NaN never passes.
inline void expect_near(const Tensor& actual, const Tensor& expected, double absolute, double relative) {
  ASSERT_EQ(actual.elements(), expected.elements());
  for (int64_t r = 0; r < actual.rows(); ++r) {
    for (int64_t i = 0; i < actual.row_elements(); ++i) {
      const double a = reference::get(actual, r, i), e = reference::get(expected, r, i);
      ASSERT_TRUE(std::abs(a - e) <= absolute + relative * std::abs(e))
          << "row " << r << " element " << i << ": " << a << " instead of " << e;
    }
  }
}

inline void expect_same_bits(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.elements(), b.elements());
  for (int64_t r = 0; r < a.rows(); ++r) {
    ASSERT_EQ(0, std::memcmp(a.row<char>(r), b.row<char>(r), static_cast<size_t>(a.dense_row_bytes()))) << "row " << r;
  }
}

/// Half a unit in the last place of the type, relative; what rounding the exact result may cost.
inline double rounding(DType dtype) { return dtype == DType::kBF16 ? 0x1p-8 : 2e-6; }

}  // namespace msa
