#include "ops/norm_linear.h"

#include "op_test.h"
#include "ops/argmax.h"
#include "ops/reference_linear.h"

namespace msa {
namespace {

class NormLinear : public DeviceTest {
 protected:
  struct Shape {
    int64_t in, out;  // out is even
  };

  Context& context() {
    if (is_cuda()) return cuda_context();
    if (host_ == nullptr) host_ = std::make_unique<Context>(2);
    return *host_;
  }

  void check(const Shape& s, int64_t T, LinearFormat format) {
    SCOPED_TRACE("in " + std::to_string(s.in) + " out " + std::to_string(s.out) + " T " + std::to_string(T));
    const DType type = format == LinearFormat::kBF16 ? DType::kBF16 : DType::kF32;
    const double tolerance = format == LinearFormat::kBF16 ? 3e-2 : 1e-5;
    Draw draw(static_cast<uint32_t>(s.in + T));
    const Tensor x = draw.normal(DType::kF32, {T, s.in}, 3), norm = draw.normal(DType::kF32, {s.in});
    const Tensor weight = draw.normal(type, {s.out, s.in}, 1 / std::sqrt(static_cast<float>(s.in)));
    const Linear linear(context(), weight, {format, DecodeFormat::kSame});
    const Tensor h = draw.nan(type, {T, s.in}), y = draw.nan(DType::kF32, {T, s.out}),
                 both = draw.nan(type, {T, s.out});
    const Tensor mlp = draw.nan(type, {T, s.out / 2}), h2 = draw.nan(type, {T, s.in});
    {
      OnDevice on(context());
      const Normed in{on.in(x), on.in(norm), 1e-6f};
      norm_linear(context(), in, linear, on.out(h), on.out(y));
      norm_gate_up(context(), in, linear, on.out(h2), on.out(both), on.out(mlp));
    }
    const Tensor normed = draw.nan(DType::kF32, {T, s.in}), product = draw.nan(DType::kF32, {T, s.out});
    reference::rms_norm(x, norm, 1e-6f, normed);
    expect_near(h, normed, 1e-6, rounding(type));
    expect_same_bits(h, h2);
    const std::vector<double> sums = reference_linear(normed, weight);
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t o = 0; o < s.out; ++o) reference::put(product, t, o, sums[static_cast<size_t>(t * s.out + o)]);
    }
    expect_near(y, product, tolerance, tolerance);
    const Tensor gated = draw.nan(DType::kF32, {T, s.out / 2});
    reference::silu_mul(product.slice_columns(0, s.out / 2), product.slice_columns(s.out / 2, s.out), gated);
    expect_near(mlp, gated, tolerance, 2 * tolerance);
  }

 private:
  std::unique_ptr<Context> host_;
};

TEST_P(NormLinear, EqualsReference) {
  const Shape shapes[] = {{64, 48}, {576, 960}, {2560, 200}, {77, 30}, {9728, 38}, {24, 120000}};
  for (const Shape& shape : shapes) {
    for (const int64_t T : {1, 2, 3, 4, 5, 40}) {
      if (T > 5 && shape.in * shape.out > 1000000) continue;  // behind what decoding treats by itself nothing is new
      check(shape, T, LinearFormat::kF32);
      check(shape, T, LinearFormat::kBF16);
    }
  }
}

MSA_TEST_ON_DEVICES(NormLinear);

class Argmax : public DeviceTest {};

TEST_P(Argmax, TakesTheLowerOfEqualOnesAndNoNaN) {
  Context& context = cuda_context();
  for (const int64_t n : {1, 31, 1024, 49153}) {
    Draw draw(static_cast<uint32_t>(n));
    const Tensor x = draw.normal(DType::kF32, {n});
    const int64_t at = n / 3;
    x.as<float>()[at] = 9;
    x.as<float>()[n - 1] = 9;
    if (n > 3) x.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
    int32_t best = -1;
    {
      OnDevice on(context);
      argmax_on_device(context, on.in(x), on.out(Tensor(&best, DType::kI32, {1})));
    }
    EXPECT_EQ(best, at);
  }
}

INSTANTIATE_TEST_SUITE_P(On, Argmax, testing::Values(DeviceType::kCuda), device_test_name);

}  // namespace
}  // namespace msa
