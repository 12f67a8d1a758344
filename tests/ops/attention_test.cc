#include "ops/attention.h"

#include "op_test.h"

namespace msa {
namespace {

struct Shape {
  int64_t heads, groups, d;
};
constexpr Shape kShapes[] = {{9, 3, 64}, {1, 1, 8}, {3, 3, 16}, {5, 1, 32}, {4, 2, 128}, {2, 1, 20}, {7, 1, 7}};

/// Which types q, k, v and out have. Products run in bf16 only where out is BF16.
struct Types {
  DType q, kv, out;
};
constexpr DType kF = DType::kF32, kB = DType::kBF16;
constexpr Types kTypes[] = {{kF, kF, kF}, {kB, kB, kB}, {kF, kF, kB}, {kF, kB, kF}, {kB, kB, kF}, {kB, kF, kB}};

/// Float32 products: sums of rounded terms. Bf16 products round q, k, v and the weights to 8 bits.
double tolerance(const Types& types) { return types.out == kF ? 5e-6 : 3e-2; }

/// Runs `attend(context, out)` with every setting of the device: near the reference, and always the same bits.
template <class F>
void check_everywhere(Device device, Draw& draw, const Types& types, const Tensor& expected, const F& attend) {
  Tensor first;
  for_each_setting(device, [&](Context& context) {
    const Tensor out = draw.nan(types.out, {expected.dim(0), expected.dim(1), expected.dim(2)}, 4);
    attend(context, out);
    expect_near(out, expected, tolerance(types), 0);
    if (context.pool.threads() == 1 || first.empty()) first = out;
    expect_same_bits(out, first);
  });
}

void check_packed(Device device, const Shape& s, const Types& types, const std::vector<int64_t>& starts) {
  Draw draw(static_cast<uint32_t>(s.d * 100 + starts.back()));
  const int64_t tokens = starts.back();
  const Tensor q = draw.normal(types.q, {tokens, s.heads, s.d}, 1, 24);
  const Tensor k = draw.normal(types.kv, {tokens, s.groups, s.d}, 1, 8);
  const Tensor v = draw.normal(types.kv, {tokens, s.groups, s.d}, 1, 16);
  const Tensor expected = draw.nan(kF, {tokens, s.heads, s.d});
  reference::packed_causal_attention(q, k, v, starts, expected);
  check_everywhere(device, draw, types, expected, [&](Context& context, const Tensor& out) {
    OnDevice on(context);
    Buffer memory;
    packed_causal_attention(context, on.in(q), on.in(k), on.in(v), upload(context, starts, 64, memory), on.out(out));
  });
}

struct Inputs {
  Tensor q, k, v;
};

class Attention : public DeviceTest {
 protected:
  void run_packed(const Inputs& in, const std::vector<int64_t>& starts, const Tensor& out) {
    Context host(2);
    Context& context = is_cuda() ? cuda_context() : host;
    OnDevice on(context);
    Buffer memory;
    packed_causal_attention(context, on.in(in.q), on.in(in.k), on.in(in.v), upload(context, starts, 64, memory),
                            on.out(out));
  }
};

TEST_P(Attention, PackedEqualsReference) {
  for (const Shape& shape : kShapes) {
    for (const Types& types : kTypes) {
      for (const int64_t tokens : {1, 2, 63, 64, 65, 200}) check_packed(device(), shape, types, {0, tokens});
      check_packed(device(), shape, types, {0, 1, 2, 66, 66, 67, 195});
      if (HasFatalFailure()) FAIL() << "heads " << shape.heads << " groups " << shape.groups << " d " << shape.d;
    }
  }
}

TEST_P(Attention, NothingToDo) { check_packed(device(), {9, 3, 64}, {kF, kF, kF}, {0}); }

TEST_P(Attention, ManyDocuments) {
  std::vector<int64_t> starts = {0};
  for (int i = 0; i < 20; ++i) starts.push_back(starts.back() + (i * 37) % 90);
  check_packed(device(), {3, 1, 64}, {kF, kF, kF}, starts);
}

// Scores of +-1e8: the softmax picks one key exactly, and nothing overflows.
TEST_P(Attention, LargeScoresStayStable) {
  for (const float scale : {1e2f, 1e4f}) {
    for (const Types& types : {Types{kF, kF, kF}, Types{kB, kB, kB}}) {
      Draw draw(3);
      const std::vector<int64_t> starts = {0, 200};
      const Tensor q = draw.normal(types.q, {200, 3, 64}, scale), k = draw.normal(types.kv, {200, 1, 64}, scale);
      const Tensor v = draw.normal(types.kv, {200, 1, 64}), out = draw.nan(types.out, {200, 3, 64});
      run_packed({q, k, v}, starts, out);
      for (int64_t t = 0; t < 200; ++t) {
        for (int64_t i = 0; i < 3 * 64; ++i) ASSERT_LE(std::abs(reference::get(out, t, i)), 5.0);
      }
    }
  }
}

// Rows of one document must not see another's: changing the neighbour changes no bit.
TEST_P(Attention, NothingCrossesDocuments) {
  Draw draw(5);
  const std::vector<int64_t> starts = {0, 70, 140};
  const Tensor q = draw.normal(kF, {140, 3, 16}), k = draw.normal(kF, {140, 1, 16}), v = draw.normal(kF, {140, 1, 16});
  const Tensor before = draw.nan(kF, {140, 3, 16}), after = draw.nan(kF, {140, 3, 16});
  run_packed({q, k, v}, starts, before);
  for (int64_t t = 0; t < 70; ++t) {
    for (int64_t i = 0; i < 16; ++i) reference::put(k, t, i, std::numeric_limits<double>::quiet_NaN());
  }
  run_packed({q, k, v}, starts, after);
  expect_same_bits(after.slice_rows(70, 140), before.slice_rows(70, 140));
}

void check_prefixed(Device device, const Shape& s, const Types& types, int64_t tokens, int64_t earlier,
                    const std::vector<int64_t>& prefix_rows) {
  Draw draw(static_cast<uint32_t>(s.d * 1000 + tokens + earlier));
  const Tensor q = draw.normal(types.q, {tokens, s.heads, s.d}, 1, 24);
  const auto span = [&](int64_t rows, DType type) {
    const int64_t gap = tokens == 2 ? 2 : 8;  // rows that do not lie on 16 bytes, and rows that do
    return KeyValueSpan{draw.normal(type, {rows, s.groups, s.d}, 1, 8),
                        draw.normal(type, {rows, s.groups, s.d}, 1, gap)};
  };
  std::vector<KeyValueSpan> prefix;
  for (const int64_t rows : prefix_rows) prefix.push_back(span(rows, prefix.size() % 2 ? types.kv : kB));
  const KeyValueSpan local = span(earlier + tokens, types.kv);
  const Tensor expected = draw.nan(kF, {tokens, s.heads, s.d});
  reference::prefixed_attention(q, prefix, local, expected);
  check_everywhere(device, draw, types, expected, [&](Context& context, const Tensor& out) {
    OnDevice on(context);
    std::vector<KeyValueSpan> spans;
    for (const KeyValueSpan& p : prefix) spans.push_back({on.in(p.k), on.in(p.v)});
    prefixed_attention(context, on.in(q), spans, {on.in(local.k), on.in(local.v)}, on.out(out));
  });
}

TEST_P(Attention, PrefixedEqualsReference) {
  const std::vector<std::vector<int64_t>> prefixes = {{}, {3, 0, 1, 4, 2, 16, 7}};
  for (const Shape& shape : kShapes) {
    for (const Types& types : kTypes) {
      for (const int64_t tokens : {1, 2, 65}) {
        for (const int64_t earlier : {0, 33}) {
          for (const auto& prefix : prefixes) check_prefixed(device(), shape, types, tokens, earlier, prefix);
          if (HasFatalFailure()) FAIL() << "heads " << shape.heads << " groups " << shape.groups << " d " << shape.d;
        }
      }
    }
  }
}

TEST_P(Attention, LongContext) {
  for (const Types& types : kTypes) {
    check_prefixed(device(), {9, 3, 64}, types, 1, 1000, {3, 600, 9, 4, 1, 65, 64});
    check_prefixed(device(), {9, 3, 64}, types, 16, 600, {3, 9, 4, 1, 16});
    check_prefixed(device(), {9, 3, 64}, types, 130, 100, {3, 9, 4, 1, 16});
  }
}

MSA_TEST_ON_DEVICES(Attention);

}  // namespace
}  // namespace msa
