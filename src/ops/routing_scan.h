// Routing on a CUDA device (DESIGN section 1, "Route"): the k best documents of one layer for a few query tokens, from
// bf16 keys, or from int8 or 4-bit keys with a certificate that gives the same documents and scores. See
// docs/routing.md. All pointers here are device memory unless a comment says otherwise; every call only enqueues work
// on its stream.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace msa {

constexpr int kMaxRoutingTopK = 64;
constexpr int kMaxRoutingWidth = 1024;       // elements of a key
constexpr int kRoutingWidthStep = 32;        // the width is a multiple of it
constexpr int kRoutingCandidates = 1 << 16;  // chunks rescored at most; more: the bf16 scan takes over

/// The routing keys of one layer.
struct RoutingBank {
  const bf16* keys = nullptr;            // [n_chunks, n], 16-byte aligned
  const void* quantised_keys = nullptr;  // [n_chunks, quantised_key_bytes(n, key_bits)] (routing_quantise.h); or null
  const int32_t* document_of_chunk = nullptr;  // [n_chunks], below n_documents; negative: the chunk takes no part
  int64_t n_chunks = 0;                        // < 2^31
  int n_documents = 0;
  int n = 0;
  int key_bits = 8;  // of quantised_keys: 8, or 4 where n is a multiple of kPackedWidthStep
};

struct RoutingQuery {
  const float* queries = nullptr;   // [m, n] folded query heads; rounded to bf16 before they are used
  int m = 0;                        // >= 1
  int k = 0;                        // 1 … kMaxRoutingTopK
  const int32_t* rows = nullptr;    // [*n_rows] the chunks that take part (permitted_chunks); null = all
  const int32_t* n_rows = nullptr;  // [1]; null = all
  bool more = false;                // scan_documents: the scores that are there stay, as those of other chunks
};

/// What a selection leaves in device memory.
struct RoutingSelection {
  int32_t n;                           // documents found: fewer than k where fewer have a score above -inf
  int32_t candidates;                  // chunks that the bounds could not rule out; 0 of a bf16 scan
  int32_t fell_back;                   // 1: more than kRoutingCandidates, so all chunks were rescored
  uint32_t kth_order;                  // score_order of the k-th best, 0 where n < k
  int32_t documents[kMaxRoutingTopK];  // [n] best first, ties by lower document
  float scores[kMaxRoutingTopK];       // [n]
};

/// Memory of one run, from the caller: at least routing_scratch_bytes.
struct RoutingScratch {
  void* data = nullptr;  // 256-byte aligned
  size_t bytes = 0;
  void* stream = nullptr;  // cudaStream_t
};

/// Enough for any bank of at most these sizes and at most m query rows.
size_t routing_scratch_bytes(int64_t n_chunks, int n_documents, int n, int m);

/// Score of a chunk: the largest inner product with any query row, products of bf16, float32 sums in an order that
/// depends on n alone; a NaN never wins. Score of a document: the largest of its chunks that take part.
void route_bf16(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch,
                RoutingSelection* selection);
/// The same documents and scores, bit for bit, from half the bytes or a quarter.
void route_certified(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch,
                     RoutingSelection* selection);

/// The two parts of route_bf16, for whoever needs the scores of all documents: scan fills the scratch, select reads it.
void scan_documents(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch);
void select_documents(int n_documents, int k, const RoutingScratch& scratch, RoutingSelection* selection);
/// No document has a score: what a scan with `more` can begin with.
void clear_scores(int n_documents, const RoutingScratch& scratch);
/// scores [n_documents] of the last scan, or of route_bf16; -inf where a document has none.
void document_scores(int n_documents, const RoutingScratch& scratch, float* scores);
/// route_certified in steps, for whoever keeps the bf16 keys elsewhere. First the bounds; then chunks that have no
/// quantised keys, if any, are scored by scan_documents with `more`.
void scan_bounds(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch);
/// Then the chunks that bounds and scores so far cannot rule out.
struct RoutingCandidates {
  const int32_t* rows;   // [at most kRoutingCandidates]
  const int32_t* count;  // [1] more than that: all chunks with quantised keys are to be scored
};
RoutingCandidates find_candidates(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch);
/// Then their scores, from the bank's bf16 keys; or scan_documents with `more` over copies of them. document_scores are
/// then right for the k best documents and not above the truth for the others.
void score_candidates(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch);
/// After find_candidates: lower, upper [n_documents], where the score of every document lies; -inf where none of its
/// chunks takes part.
void document_bounds(int n_documents, const RoutingScratch& scratch, float* lower, float* upper);
/// What scan_bounds finds, for a test: lower, upper [n_chunks]; the score of chunk rows[i] lies between the i-th.
void chunk_bounds(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch, float* lower,
                  float* upper);

/// flags [n]: 1 where the mean of values [layers, n] is at least the threshold and above -inf, else 0.
void mark_means(const float* values, int layers, int64_t n, float threshold, uint8_t* flags, void* stream);

/// rows [n_chunks] and n_rows [1]: the chunks of documents whose `permitted` [n_documents] is not 0, in any order.
void permitted_chunks(const RoutingBank& bank, const uint8_t* permitted, int32_t* rows, int32_t* n_rows, void* stream);

/// keys [rows, n] → out [rows, quantised_key_bytes(n, bits)], the bits of quantise_key.
void quantise_keys_cuda(const bf16* keys, int64_t rows, int n, int bits, void* out, void* stream);

}  // namespace msa
