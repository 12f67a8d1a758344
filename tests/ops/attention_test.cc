#include "ops/attention.h"

#include <cstdlib>
#include <iostream>

#include "op_test.h"
#include "ops/attention_backend.h"

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
    // Rows of bf16 at multiples of 16 bytes, which cuDNN asks for.
    const Tensor out =
        draw.nan(types.out, {expected.dim(0), expected.dim(1), expected.dim(2)}, types.out == kB ? 8 : 4);
    attend(context, out);
    expect_near(out, expected, tolerance(types), 0);
    if (context.pool.threads() == 1 || first.empty()) first = out;
    expect_same_bits(out, first);
  });
}

struct PackedInputs {
  Tensor q, k, v;
  Tensor expected;

  PackedInputs(Draw& draw, const Shape& s, const Types& types, const std::vector<int64_t>& starts) {
    const int64_t tokens = starts.back();
    q = draw.normal(types.q, {tokens, s.heads, s.d}, 1, 24);
    k = draw.normal(types.kv, {tokens, s.groups, s.d}, 1, 8);
    v = draw.normal(types.kv, {tokens, s.groups, s.d}, 1, 16);
    expected = draw.nan(kF, {tokens, s.heads, s.d});
    reference::packed_causal_attention(q, k, v, starts, expected);
  }
};

void run_packed_on(Context& context, const PackedInputs& in, const std::vector<int64_t>& starts, const Tensor& out) {
  OnDevice on(context);
  Buffer memory;
  packed_causal_attention(context, on.in(in.q), on.in(in.k), on.in(in.v), upload(context, starts, 64, memory),
                          on.out(out));
}

void check_packed(Device device, const Shape& s, const Types& types, const std::vector<int64_t>& starts) {
  Draw draw(static_cast<uint32_t>(s.d * 100 + starts.back()));
  const PackedInputs in(draw, s, types, starts);
  check_everywhere(device, draw, types, in.expected,
                   [&](Context& context, const Tensor& out) { run_packed_on(context, in, starts, out); });
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

/// Packs of bf16 rows as encoding has them: short documents and long ones, one after the other.
const std::vector<std::vector<int64_t>> kPacks = {
    {0, 1, 2, 3, 700, 701}, {0, 512, 1024, 1536}, {0, 300, 300, 301, 430, 1454}, {0, 129}};

// By cuDNN where there is one; the next test has it without.
TEST_P(Attention, PacksOfDocuments) {
  if (is_cuda()) std::cout << "bf16 packs on CUDA by " << packed_attention_backend(cuda_context()) << '\n';
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{8, 2, 128}, Shape{3, 3, 128}}) {
    for (const auto& starts : kPacks) check_packed(device(), shape, {kB, kB, kB}, starts);
  }
}

TEST_P(Attention, PacksOfDocumentsWithoutCudnn) {
  if (!is_cuda()) GTEST_SKIP() << "CUDA alone has two kernels";
  setenv("MSA_CUDNN", "0", 1);
  Context context(2, device());
  ASSERT_EQ(packed_attention_backend(context), "own kernels");
  unsetenv("MSA_CUDNN");
  const Types types{kB, kB, kB};
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{8, 2, 128}}) {
    for (const auto& starts : kPacks) {
      Draw draw(static_cast<uint32_t>(shape.d + starts.back()));
      const PackedInputs in(draw, shape, types, starts);
      const Tensor out = draw.nan(types.out, {starts.back(), shape.heads, shape.d}, 4);
      run_packed_on(context, in, starts, out);
      expect_near(out, in.expected, tolerance(types), 0);
    }
  }
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

// Rows of one document must not see another's: changing the neighbours changes no bit.
TEST_P(Attention, NothingCrossesDocuments) {
  for (const auto& [type, d] : {std::pair{kF, 16}, std::pair{kB, 64}, std::pair{kB, 128}}) {
    Draw draw(5);
    const std::vector<int64_t> starts = {0, 70, 140, 200};
    const Tensor q = draw.normal(type, {200, 3, d}), k = draw.normal(type, {200, 1, d}),
                 v = draw.normal(type, {200, 1, d});
    const Tensor before = draw.nan(type, {200, 3, d}), after = draw.nan(type, {200, 3, d});
    run_packed({q, k, v}, starts, before);
    for (int64_t t = 0; t < 200; ++t) {
      if (t >= 70 && t < 140) continue;
      for (int64_t i = 0; i < d; ++i) {
        reference::put(k, t, i, std::numeric_limits<double>::quiet_NaN());
        reference::put(v, t, i, std::numeric_limits<double>::infinity());
      }
    }
    run_packed({q, k, v}, starts, after);
    expect_same_bits(after.slice_rows(70, 140), before.slice_rows(70, 140));
  }
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
