#include "ops/norm_rope.h"

#include "op_test.h"

namespace msa {
namespace {

class NormRopeTest : public DeviceTest {
 protected:
  /// Rows of k lie `gap` elements apart.
  void check(DType type, int d, bool norms, int64_t gap) {
    Draw draw(static_cast<uint32_t>(d));
    RopeTable table(d, 10000.0f, 300);
    std::vector<int32_t> positions(37);
    for (int32_t& p : positions) p = static_cast<int32_t>(draw.engine()() % 300);
    const Tensor q = draw.normal(type, {37, 6, d}, 2, 8), k = draw.normal(type, {37, 2, d}, 2, gap);
    const Tensor q_norm = draw.normal(DType::kF32, {d}), k_norm = draw.normal(DType::kF32, {d});
    for_each_setting(device(), [&](Context& context) {
      table.prepare(context);
      const Tensor got_q = draw.copy(q), got_k = draw.copy(k);
      {
        OnDevice on(context);
        Buffer memory;
        const NormRope how{&table, norms ? on.in(q_norm) : Tensor(), norms ? on.in(k_norm) : Tensor(), 1e-6f};
        norm_rope(context, how, upload(context, positions, memory), on.out(got_q), on.out(got_k));
      }
      expect_reference(draw, table, positions, norms ? q_norm : Tensor(), q, got_q);
      expect_reference(draw, table, positions, norms ? k_norm : Tensor(), k, got_k);
    });
  }

  static void expect_reference(Draw& draw, const RopeTable& table, const std::vector<int32_t>& positions,
                               const Tensor& norm, const Tensor& x, const Tensor& got) {
    const Tensor expected = draw.nan(DType::kF32, {x.dim(0), x.dim(1), x.dim(2)});
    for (int64_t t = 0; t < x.rows(); ++t) {
      for (int64_t i = 0; i < x.row_elements(); ++i) reference::put(expected, t, i, reference::get(x, t, i));
    }
    if (!norm.empty()) reference::rms_norm_heads(expected, norm, 1e-6f);
    reference::rope(table, positions, expected);
    // Two products are added: their rounding is of the larger one's size, which the sum need not have.
    expect_near(got, expected, x.dtype == DType::kBF16 ? 1e-3 : 1e-5, rounding(x.dtype));
  }
};

TEST_P(NormRopeTest, EqualsReference) {
  for (const bool norms : {false, true}) {
    for (const int d : {2, 6, 20, 64, 128, 256}) {
      for (const int64_t gap : {3, 8}) {
        check(DType::kF32, d, norms, gap);
        if (is_cuda()) check(DType::kBF16, d, norms, gap);
      }
    }
  }
}

MSA_TEST_ON_DEVICES(NormRopeTest);

}  // namespace
}  // namespace msa
