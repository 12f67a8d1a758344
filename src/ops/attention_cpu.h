// Between attention.cc (checks, who does what) and attention_cpu.cc (kernels).
#pragma once
#include <span>
#include <vector>

#include "ops/attention.h"

namespace msa {

/// Query rows over one context: of its `keys` rows in all, row t of q sees the first keys - T + t + 1.
struct AttentionSequence {
  Tensor q;                               // [T, H, d]
  Tensor out;                             // [T, H, d]
  std::span<const KeyValueSpan> context;  // k, v [S_i, G, d]; the S_i sum to `keys`
  int64_t keys = 0;
};

/// A block of query tokens of one sequence and one key/value head, over the keys [key_begin, key_end).
struct AttentionItem {
  int sequence = 0;
  int group = 0;  // key/value head
  int64_t token_begin = 0;
  int64_t token_end = 0;
  int64_t key_begin = 0;
  int64_t key_end = 0;
};

struct AttentionPlan {
  std::span<const AttentionSequence> sequences;
  std::vector<AttentionItem> items;  // those of one sequence and group lie together
  int64_t head_dim = 0;
  int64_t heads_per_group = 0;  // H / G
  int64_t most_keys = 0;        // of one item
  bool bf16_products = false;
  // Not null when the keys of the only block are split over items: item i leaves its state there instead of writing
  // `out`: [items, attention_state_floats].
  float* partial_states = nullptr;
};

/// Query tokens of one block: shapes alone decide, so results do not depend on the number of threads.
int64_t attention_block_tokens(int64_t heads_per_group);
/// float32 of scratch that one worker needs.
size_t attention_scratch_floats(const AttentionPlan& plan);
/// float32 of the running state of one block: maximum, sum and unnormalised output of every row.
size_t attention_state_floats(const AttentionPlan& plan);

/// Items [begin, end) of the plan on the calling thread.
void attend_items(const AttentionPlan& plan, size_t begin, size_t end, float* scratch);
/// Joins the partial states of items [begin, end), all of one block, in order, and writes the block's output.
void join_partial_states(const AttentionPlan& plan, size_t begin, size_t end);

}  // namespace msa
