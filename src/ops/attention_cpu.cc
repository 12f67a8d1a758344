// Blockwise attention with a running softmax. The query heads that share a key/value head form one block of rows, so
// each packed key and value serves all of them.
#include "ops/attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "ops/dot-inl.h"
#include "ops/gemm-inl.h"
#include "ops/pack-inl.h"

#ifndef MSA_OPS_ATTENTION_CPU_ONCE
#define MSA_OPS_ATTENTION_CPU_ONCE
namespace msa {

constexpr size_t kBlockRows = 48;  // query rows of a block: scores and output of a block stay in the L1 and L2 caches
constexpr size_t kKeyTile = 128;   // keys of one step of the running softmax
constexpr size_t kScoreStride = kKeyTile + 16;  // room behind a row, and rows fall into different cache sets
constexpr size_t kMostColumns = 32;             // panel_columns() of the widest instruction set

/// Of the queries: d^-1/2, and log2 e so that the softmax takes powers of two.
inline float score_scale(size_t head_dim) {
  return static_cast<float>(std::numbers::log2e / std::sqrt(static_cast<double>(head_dim)));
}

inline size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Shapes of one worker's scratch.
struct AttentionExtents {
  size_t rows;        // query rows of a block
  size_t padded_dim;  // head_dim rounded up to panels
  size_t padded_keys;

  explicit AttentionExtents(const AttentionPlan& plan)
      : rows(static_cast<size_t>(attention_block_tokens(plan.heads_per_group) * plan.heads_per_group)),
        padded_dim(round_up(static_cast<size_t>(plan.head_dim), kMostColumns)),
        padded_keys(round_up(static_cast<size_t>(plan.most_keys), kMostColumns)) {}

  size_t packed() const { return padded_keys * padded_dim; }
  size_t queries() const { return 2 * rows * padded_dim; }
  size_t scores() const { return rows * kScoreStride; }
  size_t state() const { return round_up(rows * (padded_dim + 2), 16); }
  size_t all() const { return 2 * packed() + 6 * padded_dim + queries() + scores() + state(); }
};

/// One worker's scratch, laid out over one run of float32.
struct AttentionScratch {
  float* keys;     // [padded keys / columns, head_dim steps, columns]
  float* values;   // [padded head_dim / columns, padded keys steps, columns]
  float* rows;     // [6, padded head_dim] rows under way
  float* queries;  // [block rows, head_dim steps], twice for TokenAttention
  float* scores;   // [block rows, kScoreStride]
  float* state;    // BlockState

  AttentionScratch(const AttentionPlan& plan, float* memory) {
    const AttentionExtents extents(plan);
    keys = memory;
    values = keys + extents.packed();
    rows = values + extents.packed();
    queries = rows + 6 * extents.padded_dim;
    scores = queries + extents.queries();
    state = scores + extents.scores();
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
    const AttentionExtents extents(plan);
    stride = extents.padded_dim;
    output = memory;
    maximum = output + extents.rows * stride;
    sum = maximum + extents.rows;
  }

  void clear(size_t rows) const {
    std::fill_n(maximum, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(sum, rows, 0.0f);
    std::fill_n(output, rows * stride, 0.0f);
  }
};

/// In place; as bf16 neighbours in the first half of the row where products run on pairs.
template <bool kPairs>
HWY_INLINE float exponentials(float* scores, size_t n, float maximum) {
  const FloatTag d;
  const auto shift = hn::Set(d, maximum);
  auto sum = hn::Zero(d);
  for (size_t i = 0; i < n; i += hn::Lanes(d)) {
    const auto p = exp2_nonpositive<kPairs>(d, hn::Sub(hn::LoadU(d, scores + i), shift));
    sum = hn::Add(sum, p);
    store_step_elements<kPairs>(p, scores, i);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

HWY_INLINE void rescale(const BlockState& state, size_t r, float maximum) {
  const FloatTag d;
  const float factor = std::exp2(state.maximum[r] - maximum);
  state.maximum[r] = maximum;
  if (state.sum[r] == 0) return;
  state.sum[r] *= factor;
  float* output = state.output + r * state.stride;
  for (size_t i = 0; i < state.stride; i += hn::Lanes(d)) {
    hn::StoreU(hn::Mul(hn::LoadU(d, output + i), hn::Set(d, factor)), d, output + i);
  }
}

/// Turns the first `visible` scores of a row into 2^(score - maximum), the others up to n (rounded up) into 0, and
/// rescales the row's state to the new maximum.
template <bool kPairs>
HWY_INLINE void softmax_row(float* scores, size_t visible, size_t n, const BlockState& state, size_t r) {
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
    const float sum = exponentials<kPairs>(scores, used, state.maximum[r]);
    state.sum[r] += sum;
  }
  for (i = used; i < round_up(n, 2 * lanes); i += lanes) store_step_elements<kPairs>(hn::Zero(d), scores, i);
}

/// Blocks of many query rows: keys and values are packed once and serve all blocks of a sequence.
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
    state.clear(rows);
    const int64_t first_visible = sequence.keys - sequence.q.rows() + item.token_begin + 1 - key_begin_;
    const size_t end = std::min(keys_, static_cast<size_t>(item.key_end - key_begin_));
    for (size_t k = 0; k < end; k += kKeyTile) {
      const size_t n = std::min(kKeyTile, end - k);
      score_tile(rows, k, n);
      for (size_t r = 0; r < rows; ++r) {
        const int64_t visible = first_visible + static_cast<int64_t>(r / heads_) - static_cast<int64_t>(k);
        const int64_t clamped = std::clamp<int64_t>(visible, 0, static_cast<int64_t>(n));
        softmax_row<kPairs>(scratch_.scores + r * kScoreStride, static_cast<size_t>(clamped), n, state, r);
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
    const float scale = score_scale(dim_);
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
      const PanelProduct<> product{scratch_.queries, dim_steps_,          keys,        panel_columns(),
                                   dim_steps_,       scratch_.scores + c, kScoreStride};
      panel_product<kPairs, false>(product, rows);
    }
  }

  /// output += probabilities [rows, n] · values [k, k + n).
  void add_values(size_t rows, size_t k, size_t n, const BlockState& state) {
    constexpr size_t kKeysOfStep = kPairs ? 2 : 1;
    const size_t all_steps = round_up(keys_, panel_columns()) / kKeysOfStep;
    const size_t steps = (n + kKeysOfStep - 1) / kKeysOfStep;
    for (size_t c = 0; c < dim_; c += panel_columns()) {
      const float* values = scratch_.values + c * all_steps + k / kKeysOfStep * panel_columns();
      const PanelProduct<> product{scratch_.scores, kScoreStride,     values,      panel_columns(),
                                   steps,           state.output + c, state.stride};
      panel_product<kPairs, true>(product, rows);
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

/// One query token: its few rows pass over keys and values where they lie, in float32 (decoding).
class TokenAttention {
 public:
  TokenAttention(const AttentionPlan& plan, float* scratch)
      : scratch_(plan, scratch),
        dim_(static_cast<size_t>(plan.head_dim)),
        heads_(static_cast<size_t>(plan.heads_per_group)) {}

  /// Values are read in whole panels.
  static bool can_do(const AttentionPlan& plan, const AttentionSequence& sequence) {
    return sequence.q.rows() == 1 && static_cast<size_t>(plan.head_dim) % panel_columns() == 0;
  }

  void run(const AttentionSequence& sequence, const AttentionItem& item, const BlockState& state) {
    state.clear(heads_);
    // Both types may occur among the spans.
    split_queries<float>(sequence.q, item.group, scratch_.queries);
    split_queries<bf16>(sequence.q, item.group, scratch_.queries + heads_ * dim_);
    for (int64_t k = item.key_begin; k < item.key_end; k += kKeyTile) {
      const int64_t end = std::min<int64_t>(k + kKeyTile, item.key_end);
      for_each_run(sequence, item.group, k, end, [&](const auto& run) HWY_ATTR { score(run); });
      const size_t n = static_cast<size_t>(end - k);
      for (size_t h = 0; h < heads_; ++h) softmax_row<false>(scratch_.scores + h * kScoreStride, n, n, state, h);
      for_each_run(sequence, item.group, k, end, [&](const auto& run) HWY_ATTR { add_values(run, state); });
    }
  }

 private:
  /// Neighbouring keys and values of one head inside one tile.
  template <class T>
  struct Run {
    const T* k;  // [n, dim], `stride` apart
    const T* v;
    size_t k_stride;
    size_t v_stride;
    size_t n;
    size_t column;  // in the tile
  };

  template <class F>
  HWY_INLINE void for_each_run(const AttentionSequence& sequence, int group, int64_t begin, int64_t end, const F& f) {
    int64_t at = 0;
    for (const KeyValueSpan& span : sequence.context) {
      const int64_t from = std::max(begin, at), to = std::min(end, at + span.k.rows());
      if (from < to) {
        const KeyValueSpan part{span.k.slice_rows(from - at, to - at), span.v.slice_rows(from - at, to - at)};
        const size_t column = static_cast<size_t>(from - begin);
        span.k.dtype == DType::kF32 ? f(run_of<float>(part, group, column)) : f(run_of<bf16>(part, group, column));
      }
      at += span.k.rows();
    }
  }

  template <class T>
  Run<T> run_of(const KeyValueSpan& part, int group, size_t column) {
    const size_t head = static_cast<size_t>(group) * dim_;
    return {part.k.as<T>() + head,
            part.v.as<T>() + head,
            static_cast<size_t>(part.k.row_bytes) / sizeof(T),
            static_cast<size_t>(part.v.row_bytes) / sizeof(T),
            static_cast<size_t>(part.k.rows()),
            column};
  }

  template <class Key>
  void split_queries(const Tensor& q, int group, float* to) {
    const float scale = score_scale(dim_);
    for (size_t h = 0; h < heads_; ++h) {
      const size_t column = (static_cast<size_t>(group) * heads_ + h) * dim_;
      q.dtype == DType::kF32 ? split_query<Key>(q.as<float>() + column, dim_, scale, to + h * dim_)
                             : split_query<Key>(q.as<bf16>() + column, dim_, scale, to + h * dim_);
    }
  }

  template <class T>
  HWY_INLINE void score(const Run<T>& run) {
    const float* queries = scratch_.queries + (sizeof(T) == 4 ? 0 : heads_ * dim_);
    for (size_t j = 0; j < run.n; j += kKeysAtOnce) {
      const auto key = [&](size_t i) { return run.k + std::min(j + i, run.n - 1) * run.k_stride; };
      const T* const keys[4] = {key(0), key(1), key(2), key(3)};
      float* to = scratch_.scores + run.column + j;
      dot_4_keys<T>(queries, heads_, keys, dim_, to, kScoreStride);
    }
  }

  template <class T>
  HWY_INLINE void add_values(const Run<T>& run, const BlockState& state) {
    for (size_t c = 0; c < dim_; c += panel_columns()) {
      const PanelProduct<T> product{
          scratch_.scores + run.column, kScoreStride, run.v + c, run.v_stride, run.n, state.output + c, state.stride};
      panel_product<false, true>(product, heads_);
    }
  }

  AttentionScratch scratch_;
  size_t dim_;
  size_t heads_;
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
  TokenAttention token(plan, scratch);
  const auto same_keys = [](const AttentionItem& a, const AttentionItem& b) {
    return a.sequence == b.sequence && a.group == b.group && a.key_begin == b.key_begin;
  };
  for (size_t i = begin, alike = begin; i < end; ++i) {
    const AttentionItem& item = plan.items[i];
    const AttentionSequence& sequence = plan.sequences[static_cast<size_t>(item.sequence)];
    const bool partial = plan.partial_states != nullptr;
    const BlockState state(
        plan, partial ? plan.partial_states + i * attention_state_floats(plan) : AttentionScratch(plan, scratch).state);
    if (TokenAttention::can_do(plan, sequence)) {
      token.run(sequence, item, state);
    } else {
      if (i >= alike) {
        alike = i;
        while (alike < end && same_keys(plan.items[alike], item)) ++alike;
        block.pack(sequence, item.group, item.key_begin, plan.items[alike - 1].key_end);
      }
      block.run(item, state);
    }
    if (!partial) write_block(plan, item, state.output);
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

size_t attention_state_floats(const AttentionPlan& plan) { return AttentionExtents(plan).state(); }
size_t attention_scratch_floats(const AttentionPlan& plan) { return AttentionExtents(plan).all(); }

void attend_items(const AttentionPlan& plan, size_t begin, size_t end, float* scratch) {
  if (begin < end) HWY_DYNAMIC_DISPATCH(attend_any)(plan, begin, end, scratch);
}

void join_partial_states(const AttentionPlan& plan, size_t begin, size_t end) {
  const AttentionItem& item = plan.items[begin];
  const size_t rows = static_cast<size_t>((item.token_end - item.token_begin) * plan.heads_per_group);
  const size_t block_rows = AttentionExtents(plan).rows, stride = AttentionExtents(plan).padded_dim;
  const auto state = [&](size_t i) { return plan.partial_states + i * attention_state_floats(plan); };
  float* joined = state(begin);
  for (size_t r = 0; r < rows; ++r) {
    const size_t maximum_at = block_rows * stride + r, sum_at = maximum_at + block_rows;
    float maximum = joined[maximum_at];
    for (size_t i = begin; i < end; ++i) maximum = std::max(maximum, state(i)[maximum_at]);
    for (size_t i = begin; i < end; ++i) {
      const float* part = state(i);
      const float factor = std::exp2(part[maximum_at] - maximum);
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
