#include "ops/decode_attention.h"

#include "op_test.h"

namespace msa {
namespace {

constexpr DType kB = DType::kBF16;

class DecodeAttention : public DeviceTest {
 protected:
  struct Shape {
    int64_t heads, groups, d;
  };

  /// Adds one row to a cache of `length` rows and attends; the content of the cache behind it is NaN.
  static void check(const Shape& s, int length, const std::vector<int64_t>& prefix_rows, bool normed) {
    SCOPED_TRACE("d " + std::to_string(s.d) + " length " + std::to_string(length));
    Draw draw(static_cast<uint32_t>(s.d + length));
    const int64_t capacity = length + 7;
    const Tensor k = draw.nan(kB, {capacity, s.groups, s.d}), v = draw.nan(kB, {capacity, s.groups, s.d});
    const Tensor new_k = draw.normal(kB, {1, s.groups, s.d}), new_v = draw.normal(kB, {1, s.groups, s.d});
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t i = 0; i < k.row_elements(); ++i) {
        reference::put(k, t, i, std::sin(static_cast<double>(t * 31 + i)));
        reference::put(v, t, i, std::cos(static_cast<double>(t * 17 + i)));
      }
    }
    const Tensor q = draw.normal(kB, {1, s.heads, s.d}), out = draw.nan(kB, {1, s.heads, s.d});
    const Tensor q_norm = draw.normal(DType::kF32, {s.d}), k_norm = draw.normal(DType::kF32, {s.d});
    const int32_t position = length + 5;
    RopeTable table(static_cast<int>(s.d), 1e4f, length + 10);
    std::vector<KeyValueSpan> prefix, prefix_on_device;
    Context& context = cuda_context();
    {
      OnDevice on(context);
      for (const int64_t rows : prefix_rows) {
        const Tensor both = draw.normal(kB, {rows, 2 * s.groups, s.d});
        prefix.push_back({half(both, 0), half(both, s.groups)});
        const Tensor copied = on.in(both);
        prefix_on_device.push_back({half(copied, 0), half(copied, s.groups)});
      }
      table.prepare(context);
      NormRope how{&table, {}, {}, 1e-6f};
      if (normed) how.q_norm = on.in(q_norm), how.k_norm = on.in(k_norm);
      run(context, on, {k, v, new_k, new_v, q, out, how, position}, prefix_on_device, length);
    }
    // What norm_rope, tested by itself, makes of them.
    {
      OnDevice on(context);
      NormRope how{&table, {}, {}, 1e-6f};
      if (normed) how.q_norm = on.in(q_norm), how.k_norm = on.in(k_norm);
      Buffer memory;
      const std::vector<int32_t> positions{position};
      norm_rope(context, how, upload(context, positions, memory), on.out(q), on.out(new_k));
    }
    expect_near(k.slice_rows(length, length + 1), new_k, 1e-6, rounding(kB));
    expect_same_bits(v.slice_rows(length, length + 1), new_v);
    const Tensor expected = draw.nan(DType::kF32, {1, s.heads, s.d});
    reference::prefixed_attention(q, prefix, {k.slice_rows(0, length + 1), v.slice_rows(0, length + 1)}, expected);
    // An element of a query may be rounded the other way by norm_rope: its score then moves by less than this.
    expect_near(out, expected, 1e-3, rounding(kB));
  }

 private:
  struct Tensors {
    Tensor k, v, new_k, new_v, q, out;
    NormRope how;
    int32_t position;
  };

  /// Columns of K (0) or V (groups) in rows that hold both, as the bank has them.
  static Tensor half(const Tensor& both, int64_t first) {
    Tensor t = both;
    t.data = both.as<bf16>() + first * both.dim(2);
    t.shape[1] = both.dim(1) / 2;
    return t;
  }

  static void run(Context& context, OnDevice& on, const Tensors& t, const std::vector<KeyValueSpan>& prefix,
                  int length) {
    const int64_t heads = t.q.dim(1), groups = t.k.dim(1), d = t.q.dim(2);
    std::vector<int32_t> words(static_cast<size_t>(2 + groups), 0);
    words[0] = length;
    words[static_cast<size_t>(1 + groups)] = t.position;
    Buffer word_memory, partial_memory;
    const Tensor on_device = to_device(context, Tensor(words.data(), DType::kI32, {2 + groups}), word_memory);
    DecodeCache cache;
    cache.k = on.out(t.k);
    cache.v = on.out(t.v);
    cache.length = on_device.slice_rows(0, 1);
    cache.counters = on_device.slice_rows(1, 1 + groups);
    cache.partials = partial_memory.tensor(DType::kF32, {heads, DecodeCache::kSplits, d + 2}, context.device);
    const Tensor out = on.out(t.out), position = on_device.slice_rows(1 + groups, 2 + groups);
    const DecodeInput in{on.in(t.q), on.in(t.new_k), on.in(t.new_v), t.how, position};
    ASSERT_TRUE(decode_fits(in, prefix, cache));
    for (int round = 0; round < 2; ++round) decode_attention(context, in, prefix, cache, out);  // counters are reset
    synchronize(context);
  }
};

TEST_P(DecodeAttention, EqualsReference) {
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{32, 8, 128}, Shape{4, 4, 16}, Shape{16, 1, 256}, Shape{2, 1, 24}}) {
    for (const int length : {0, 1, 62, 63, 64, 300, 2500}) {
      check(shape, length, {}, true);
      check(shape, length, {3, 0, 200}, false);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(On, DecodeAttention, testing::Values(DeviceType::kCuda), device_test_name);

}  // namespace
}  // namespace msa
