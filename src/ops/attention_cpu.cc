// Blockwise attention with a running softmax. The query heads that share a key/value head form one block of rows, so
// each packed key and value serves all of them.
#include "ops/attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "ops/gemm-inl.h"
#include "ops/pack-inl.h"

#ifndef MSA_OPS_ATTENTION_CPU_ONCE
#define MSA_OPS_ATTENTION_CPU_ONCE
namespace msa {

constexpr size_t kBlockRows = 48;    // query rows of a block: scores and output of a block stay in the L1 and L2 caches
constexpr size_t kKeyTile = 128;     // keys of one step of the running softmax
constexpr size_t kMostColumns = 32;  // panel_columns() of the widest instruction set

inline size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// One worker's scratch, laid out over one run of float32.
struct AttentionScratch {
  float* keys;     // [padded keys / columns, head_dim steps, columns]
  float* values;   // [padded head_dim / columns, padded keys steps, columns]
  float* rows;     // [6, padded head_dim] rows under way
  float* queries;  // [block rows, padded head_dim steps]
  float* scores;   // [block rows, kKeyTile]
  float* state;    // attention_state_floats

  static size_t block_rows(const AttentionPlan& plan) {
    return static_cast<size_t>(attention_block_tokens(plan.heads_per_group) * plan.heads_per_group);
  }
  static size_t padded_dim(const AttentionPlan& plan) {
    return round_up(static_cast<size_t>(plan.head_dim), kMostColumns);
  }
  static size_t padded_keys(const AttentionPlan& plan) {
    return round_up(static_cast<size_t>(plan.most_keys), kMostColumns);
  }

  AttentionScratch(const AttentionPlan& plan, float* memory) {
    const size_t d = padded_dim(plan), n = padded_keys(plan), r = block_rows(plan);
    keys = memory;
    values = keys + n * d;
    rows = values + n * d;
    queries = rows + 6 * d;
    scores = queries + r * d;
    state = scores + r * kKeyTile;
  }
};

}  // namespace msa
#endif  // MSA_OPS_ATTENTION_CPU_ONCE

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

/// The running softmax of one block.
struct BlockState {
  float* maximum;  // [rows]
  float* sum;      // [rows]
  float* output;   // [rows, stride], not yet divided by the sum
  size_t stride;   // padded head_dim

  BlockState(const AttentionPlan& plan, float* memory) {
    const size_t rows = AttentionScratch::block_rows(plan);
    stride = AttentionScratch::padded_dim(plan);
    output = memory;
    maximum = output + rows * stride;
    sum = maximum + rows;
  }
};

template <bool kPairs>
class BlockAttention {
 public:
  BlockAttention(const AttentionPlan& plan, float* scratch)
      : plan_(plan),
        scratch_(plan, scratch),
        dim_(static_cast<size_t>(plan.head_dim)),
        dim_steps_(kPairs ? (dim_ + 1) / 2 : dim_),
        heads_(static_cast<size_t>(plan.heads_per_group)) {}

  /// Packs keys and values [begin, end) of one sequence and key/value head.
  void pack(const AttentionSequence& sequence, int group, int64_t begin, int64_t end) {
    keys_ = static_cast<size_t>(end - begin);
    key_begin_ = begin;
    KeyPacker<kPairs> packer(dim_, keys_, {scratch_.keys, scratch_.values, scratch_.rows});
    int64_t at = 0;
    for (const KeyValueSpan& span : sequence.context) {
      const int64_t from = std::max<int64_t>(begin - at, 0), to = std::min(end - at, span.k.rows());
      span.k.dtype == DType::kF32 ? pack_span<float>(span, group, from, to, packer)
                                  : pack_span<bf16>(span, group, from, to, packer);
      at += span.k.rows();
    }
    packer.finish();
  }

  /// Runs the block of `item` over the packed keys; its state is complete afterwards.
  void run(const AttentionItem& item, const BlockState& state) {
    const AttentionSequence& sequence = plan_.sequences[static_cast<size_t>(item.sequence)];
    const size_t rows = static_cast<size_t>(item.token_end - item.token_begin) * heads_;
    pack_queries(sequence.q, item);
    std::fill_n(state.maximum, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(state.sum, rows, 0.0f);
    std::fill_n(state.output, rows * state.stride, 0.0f);
    const int64_t first_visible = sequence.keys - sequence.q.rows() + item.token_begin + 1 - key_begin_;
    const size_t end = std::min(keys_, static_cast<size_t>(item.key_end - key_begin_));
    for (size_t k = 0; k < end; k += kKeyTile) {
      const size_t n = std::min(kKeyTile, end - k);
      score_tile(rows, k, n);
      for (size_t r = 0; r < rows; ++r) {
        const int64_t visible = first_visible + static_cast<int64_t>(r / heads_) - static_cast<int64_t>(k);
        const int64_t clamped = std::clamp<int64_t>(visible, 0, static_cast<int64_t>(n));
        softmax_row(scratch_.scores + r * kKeyTile, static_cast<size_t>(clamped), n, state, r);
      }
      add_values(rows, k, n, state);
    }
  }

 private:
  template <class In>
  void pack_span(const KeyValueSpan& span, int group, int64_t from, int64_t to, KeyPacker<kPairs>& packer) {
    const size_t column = static_cast<size_t>(group) * dim_;
    for (int64_t s = from; s < to; ++s) packer.add(span.k.row<In>(s) + column, span.v.row<In>(s) + column);
  }

  void pack_queries(const Tensor& q, const AttentionItem& item) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim_));
    size_t row = 0;
    for (int64_t t = item.token_begin; t < item.token_end; ++t) {
      for (size_t h = 0; h < heads_; ++h, ++row) {
        const size_t column = (static_cast<size_t>(item.group) * heads_ + h) * dim_;
        float* to = scratch_.queries + row * dim_steps_;
        q.dtype == DType::kF32 ? pack_steps<kPairs>(q.row<float>(t) + column, dim_, scale, to)
                               : pack_steps<kPairs>(q.row<bf16>(t) + column, dim_, scale, to);
      }
    }
  }

  /// scores [rows, n] = queries · keys [k, k + n).
  void score_tile(size_t rows, size_t k, size_t n) {
    for (size_t c = 0; c < n; c += panel_columns()) {
      const float* keys = scratch_.keys + (k + c) * dim_steps_;
      panel_product<kPairs, false>({scratch_.queries, dim_steps_, keys, dim_steps_, scratch_.scores + c, kKeyTile},
                                   rows);
    }
  }

  /// output += probabilities [rows, n] · values [k, k + n).
  void add_values(size_t rows, size_t k, size_t n, const BlockState& state) {
    constexpr size_t kKeysOfStep = kPairs ? 2 : 1;
    const size_t all_steps = round_up(keys_, panel_columns()) / kKeysOfStep;
    const size_t steps = (n + kKeysOfStep - 1) / kKeysOfStep;
    for (size_t c = 0; c < dim_; c += panel_columns()) {
      const float* values = scratch_.values + c * all_steps + k / kKeysOfStep * panel_columns();
      panel_product<kPairs, true>({scratch_.scores, kKeyTile, values, steps, state.output + c, state.stride}, rows);
    }
  }

  /// Turns the first `visible` scores of a row into exp(score - maximum), the others up to n (rounded up) into 0, and
  /// rescales the row's state to the new maximum.
  void softmax_row(float* scores, size_t visible, size_t n, const BlockState& state, size_t r) {
    const FloatTag d;
    const size_t lanes = hn::Lanes(d);
    const auto lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
    auto top = lowest;
    size_t i = 0;
    for (; i + lanes <= visible; i += lanes) top = hn::Max(top, hn::LoadU(d, scores + i));
    if (i < visible) {
      const auto last = hn::IfThenElse(hn::FirstN(d, visible - i), hn::LoadU(d, scores + i), lowest);
      hn::StoreU(last, d, scores + i);
      top = hn::Max(top, last);
      i += lanes;
    }
    const size_t used = i;
    if (used > 0) {
      const float maximum = std::max(state.maximum[r], hn::GetLane(hn::MaxOfLanes(d, top)));
      if (maximum > state.maximum[r]) rescale(state, r, maximum);
      const float sum = exponentials(scores, used, state.maximum[r]);
      state.sum[r] += sum;
    }
    const size_t end = round_up(n, 2 * lanes);
    if constexpr (kPairs) {
      auto* p = reinterpret_cast<bf16*>(scores);
      for (i = used; i < end; i += lanes) store_float(d, hn::Zero(d), p + i);
    } else {
      for (i = used; i < end; i += lanes) hn::StoreU(hn::Zero(d), d, scores + i);
    }
  }

  /// In place; as bf16 neighbours in the first half of the row where products run on pairs.
  float exponentials(float* scores, size_t n, float maximum) {
    const FloatTag d;
    const auto shift = hn::Set(d, maximum);
    auto sum = hn::Zero(d);
    for (size_t i = 0; i < n; i += hn::Lanes(d)) {
      const auto p = exp_nonpositive(d, hn::Sub(hn::LoadU(d, scores + i), shift));
      sum = hn::Add(sum, p);
      if constexpr (kPairs)
        store_float(d, p, reinterpret_cast<bf16*>(scores) + i);
      else
        hn::StoreU(p, d, scores + i);
    }
    return hn::GetLane(hn::SumOfLanes(d, sum));
  }

  void rescale(const BlockState& state, size_t r, float maximum) {
    const FloatTag d;
    const float factor = std::exp(state.maximum[r] - maximum);
    state.maximum[r] = maximum;
    if (state.sum[r] == 0) return;
    state.sum[r] *= factor;
    float* output = state.output + r * state.stride;
    for (size_t i = 0; i < state.stride; i += hn::Lanes(d)) {
      hn::StoreU(hn::Mul(hn::LoadU(d, output + i), hn::Set(d, factor)), d, output + i);
    }
  }

  const AttentionPlan& plan_;
  AttentionScratch scratch_;
  size_t dim_;
  size_t dim_steps_;
  size_t heads_;
  size_t keys_ = 0;  // packed
  int64_t key_begin_ = 0;
};

/// Divides by the sums and writes the block's rows of `out`.
template <class Out>
HWY_INLINE void write_output(const AttentionPlan& plan, const AttentionItem& item, const BlockState& state) {
  const Tensor& out = plan.sequences[static_cast<size_t>(item.sequence)].out;
  const size_t dim = static_cast<size_t>(plan.head_dim), heads = static_cast<size_t>(plan.heads_per_group);
  size_t r = 0;
  for (int64_t t = item.token_begin; t < item.token_end; ++t) {
    for (size_t h = 0; h < heads; ++h, ++r) {
      const float scale = 1.0f / state.sum[r];
      const float* from = state.output + r * state.stride;
      Out* to = out.row<Out>(t) + (static_cast<size_t>(item.group) * heads + h) * dim;
      for_each_vector(dim, [&](auto d, size_t i) HWY_ATTR {
        store_float(d, hn::Mul(hn::LoadU(d, from + i), hn::Set(d, scale)), to + i);
      });
    }
  }
}

void write_block(const AttentionPlan& plan, const AttentionItem& item, float* state) {
  const bool f32 = plan.sequences[static_cast<size_t>(item.sequence)].out.dtype == DType::kF32;
  f32 ? write_output<float>(plan, item, {plan, state}) : write_output<bf16>(plan, item, {plan, state});
}

template <bool kPairs>
void attend_with(const AttentionPlan& plan, size_t begin, size_t end, float* scratch) {
  BlockAttention<kPairs> block(plan, scratch);
  const auto same_keys = [](const AttentionItem& a, const AttentionItem& b) {
    return a.sequence == b.sequence && a.group == b.group && a.key_begin == b.key_begin;
  };
  for (size_t i = begin, packed = begin; i < end; ++i) {
    const AttentionItem& item = plan.items[i];
    for (; packed < end && same_keys(plan.items[packed], item); ++packed) {
    }
    if (i == begin || !same_keys(plan.items[i - 1], item)) {
      const AttentionSequence& sequence = plan.sequences[static_cast<size_t>(item.sequence)];
      block.pack(sequence, item.group, item.key_begin, plan.items[packed - 1].key_end);
    }
    if (plan.partial_states != nullptr) {
      block.run(item, {plan, plan.partial_states + i * attention_state_floats(plan)});
    } else {
      float* state = AttentionScratch(plan, scratch).state;
      block.run(item, {plan, state});
      write_block(plan, item, state);
    }
  }
}

void attend_any(const AttentionPlan& plan, size_t begin, size_t end, float* scratch) {
  if constexpr (kHasPairs) {
    if (plan.bf16_products) return attend_with<true>(plan, begin, end, scratch);
  }
  attend_with<false>(plan, begin, end, scratch);
}

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace msa {

HWY_EXPORT(attend_any);
HWY_EXPORT(write_block);

int64_t attention_block_tokens(int64_t heads_per_group) {
  return std::max<int64_t>(1, static_cast<int64_t>(kBlockRows) / heads_per_group);
}

size_t attention_state_floats(const AttentionPlan& plan) {
  return round_up(AttentionScratch::block_rows(plan) * (AttentionScratch::padded_dim(plan) + 2), 16);
}

size_t attention_scratch_floats(const AttentionPlan& plan) {
  return static_cast<size_t>(AttentionScratch(plan, nullptr).state - static_cast<float*>(nullptr)) +
         attention_state_floats(plan);
}

void attend_items(const AttentionPlan& plan, size_t begin, size_t end, float* scratch) {
  if (begin < end) HWY_DYNAMIC_DISPATCH(attend_any)(plan, begin, end, scratch);
}

void join_partial_states(const AttentionPlan& plan, size_t begin, size_t end) {
  const AttentionItem& item = plan.items[begin];
  const size_t rows = static_cast<size_t>((item.token_end - item.token_begin) * plan.heads_per_group);
  const size_t block_rows = AttentionScratch::block_rows(plan), stride = AttentionScratch::padded_dim(plan);
  const auto state = [&](size_t i) { return plan.partial_states + i * attention_state_floats(plan); };
  float* joined = state(begin);
  for (size_t r = 0; r < rows; ++r) {
    const size_t maximum_at = block_rows * stride + r, sum_at = maximum_at + block_rows;
    float maximum = joined[maximum_at];
    for (size_t i = begin; i < end; ++i) maximum = std::max(maximum, state(i)[maximum_at]);
    for (size_t i = begin; i < end; ++i) {
      const float* part = state(i);
      const float factor = std::exp(part[maximum_at] - maximum);
      const float keep = i == begin ? 0.0f : 1.0f;
      joined[sum_at] = keep * joined[sum_at] + factor * part[sum_at];
      for (size_t c = 0; c < stride; ++c) {
        const size_t at = r * stride + c;
        joined[at] = keep * joined[at] + factor * part[at];
      }
    }
    joined[maximum_at] = maximum;
  }
  HWY_DYNAMIC_DISPATCH(write_block)(plan, item, joined);
}

}  // namespace msa
#endif  // HWY_ONCE
