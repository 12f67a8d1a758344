#include "ops/attention.h"

#include <algorithm>

#include "core/cpu.h"
#include "ops/attention_backend.h"
#include "ops/attention_cpu.h"
#include "ops/check.h"
#include "ops/cuda_ops.h"

namespace msa {
namespace {

// Keys of one item when the only block of queries is shared out by keys (decoding).
constexpr int64_t kSplitKeys = 256;

void check_keys_and_values(const KeyValueSpan& s, const Tensor& q) {
  MSA_CHECK(s.k.rank == 3 && is_f32_or_bf16(s.k) && is_f32_or_bf16(s.v) && s.k.dtype == s.v.dtype);
  MSA_CHECK(same_shape(s.k, s.v) && s.k.dim(2) == q.dim(2));
  MSA_CHECK(s.k.dim(1) > 0 && q.dim(1) % s.k.dim(1) == 0);
}

void check_queries(const Tensor& q, const Tensor& out) {
  MSA_CHECK(q.rank == 3 && is_f32_or_bf16(q) && is_f32_or_bf16(out) && same_shape(q, out) && q.dim(2) > 0);
}

AttentionPlan make_plan(std::span<const AttentionSequence> sequences, int64_t groups) {
  const Tensor& q = sequences.front().q;
  AttentionPlan plan;
  plan.sequences = sequences;
  plan.head_dim = q.dim(2);
  plan.heads_per_group = q.dim(1) / groups;
  plan.bf16_products = sequences.front().out.dtype == DType::kBF16 && cpu_features().avx512_bf16;
  const int64_t step = attention_block_tokens(plan.heads_per_group);
  for (int s = 0; s < static_cast<int>(sequences.size()); ++s) {
    const int64_t tokens = sequences[s].q.rows(), hidden = sequences[s].keys - tokens;
    for (int g = 0; g < groups; ++g) {
      for (int64_t t = 0; t < tokens; t += step) {
        const int64_t end = std::min(tokens, t + step);
        plan.items.push_back({s, g, t, end, 0, hidden + end});
      }
    }
    plan.most_keys = std::max(plan.most_keys, sequences[s].keys);
  }
  return plan;
}

/// Splits the keys of every item, for the case of one sequence of one block.
void split_keys(AttentionPlan& plan) {
  std::vector<AttentionItem> whole;
  whole.swap(plan.items);
  for (const AttentionItem& item : whole) {
    for (int64_t k = 0; k < item.key_end; k += kSplitKeys) {
      AttentionItem& part = plan.items.emplace_back(item);
      part.key_begin = k;
      part.key_end = std::min(item.key_end, k + kSplitKeys);
    }
  }
  plan.most_keys = std::min(plan.most_keys, kSplitKeys);
}

/// Gives worker w the items [bounds[w], bounds[w + 1]): contiguous, of about equal cost.
std::vector<size_t> share_out(const AttentionPlan& plan, int workers) {
  constexpr int64_t kItemCost = 64;  // packing queries, writing outputs; in keys
  const auto cost = [&](const AttentionItem& i) {
    return (i.key_end - i.key_begin + kItemCost) * (i.token_end - i.token_begin);
  };
  int64_t total = 0, done = 0;
  for (const AttentionItem& item : plan.items) total += cost(item);
  std::vector<size_t> bounds(static_cast<size_t>(workers) + 1, plan.items.size());
  bounds[0] = 0;
  size_t w = 1;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    while (w < static_cast<size_t>(workers) &&
           (done + cost(plan.items[i]) / 2) * workers >= total * static_cast<int64_t>(w)) {
      bounds[w++] = i;
    }
    done += cost(plan.items[i]);
  }
  return bounds;
}

void run(Context& context, const AttentionPlan& plan) {
  const int workers = static_cast<int>(std::min<size_t>(context.pool.threads(), plan.items.size()));
  const std::vector<size_t> bounds = share_out(plan, workers);
  const size_t floats = attention_scratch_floats(plan);
  context.scratch[0].reserve(floats * sizeof(float) * static_cast<size_t>(workers));
  float* scratch = static_cast<float*>(context.scratch[0].data());
  context.pool.parallel_for(workers, 1, [&](int64_t begin, int64_t end, int) {
    for (size_t w = static_cast<size_t>(begin); w < static_cast<size_t>(end); ++w) {
      attend_items(plan, bounds[w], bounds[w + 1], scratch + w * floats);
    }
  });
}

void run_split_by_keys(Context& context, AttentionPlan& plan) {
  split_keys(plan);
  context.scratch[1].reserve(plan.items.size() * attention_state_floats(plan) * sizeof(float));
  plan.partial_states = static_cast<float*>(context.scratch[1].data());
  run(context, plan);
  for (size_t begin = 0, end = 0; begin < plan.items.size(); begin = end) {
    while (end < plan.items.size() && plan.items[end].group == plan.items[begin].group) ++end;
    join_partial_states(plan, begin, end);
  }
}

}  // namespace

void packed_causal_attention(Context& context, const Tensor& q, const Tensor& k, const Tensor& v,
                             const Sequences& packed, const Tensor& out) {
  const std::span<const int64_t> starts = packed.starts;
  check_queries(q, out);
  check_keys_and_values({k, v}, q);
  MSA_CHECK(k.rows() == q.rows());
  MSA_CHECK(!starts.empty() && starts.front() == 0 && starts.back() == q.rows());
  MSA_CHECK(std::is_sorted(starts.begin(), starts.end()));
  if (runs_on_cuda(context, q, k, v, out)) {
    if (q.rows() == 0) return;
    MSA_CHECK(packed.tiles.device == context.device);
    if constexpr (kHasCuda) return packed_causal_attention_cuda(context, q, k, v, packed, out);
  }
  std::vector<KeyValueSpan> keys(starts.size());
  std::vector<AttentionSequence> sequences;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const int64_t begin = starts[s], end = starts[s + 1];
    if (begin == end) continue;
    keys[s] = {k.slice_rows(begin, end), v.slice_rows(begin, end)};
    sequences.push_back({q.slice_rows(begin, end), out.slice_rows(begin, end), {&keys[s], 1}, end - begin});
  }
  if (!sequences.empty()) run(context, make_plan(sequences, k.dim(1)));
}

std::string packed_attention_backend(Context& context) {
  if constexpr (kHasCuda) {
    if (on_cuda(context.device)) return packed_attention_backend_cuda(context);
  }
  return "own kernels";
}

void prefixed_attention(Context& context, const Tensor& q, std::span<const KeyValueSpan> prefix,
                        const KeyValueSpan& local, const Tensor& out) {
  check_queries(q, out);
  check_keys_and_values(local, q);
  MSA_CHECK(local.k.rows() >= q.rows());
  std::vector<KeyValueSpan> keys(prefix.begin(), prefix.end());
  for (const KeyValueSpan& span : keys) {
    check_keys_and_values(span, q);
    MSA_CHECK(span.k.dim(1) == local.k.dim(1));
  }
  keys.push_back(local);
  if (q.rows() == 0) return;
  if (runs_on_cuda(context, q, out)) {
    for (const KeyValueSpan& span : keys) MSA_CHECK(span.k.device == context.device && span.v.device == context.device);
    if constexpr (kHasCuda) return prefixed_attention_cuda(context, q, keys, out);
  }
  AttentionSequence sequence{q, out, keys, 0};
  for (const KeyValueSpan& span : keys) sequence.keys += span.k.rows();
  AttentionPlan plan = make_plan({&sequence, 1}, local.k.dim(1));
  const bool one_block = q.rows() <= attention_block_tokens(plan.heads_per_group);
  if (one_block && sequence.keys > kSplitKeys)
    run_split_by_keys(context, plan);
  else
    run(context, plan);
}

}  // namespace msa
