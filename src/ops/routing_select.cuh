// What follows and prepares the scan on the device; each only enqueues its kernel.
#pragma once
#include "ops/routing_device.cuh"
#include "ops/routing_scan.h"
#include "ops/routing_scan_kernel.cuh"

namespace msa {

constexpr int kSelectBlocks = 128;  // at most

struct SelectParams {
  const uint32_t* document_orders = nullptr;  // [n_documents]
  int n_documents = 0;
  int k = 0;
  uint64_t* block_best = nullptr;              // [kSelectBlocks, kMaxRoutingTopK]
  uint32_t* ticket = nullptr;                  // [1] 0 before and after
  RoutingSelection* selection = nullptr;       // n, kth_order, documents, scores
  const RoutingSelection* at_least = nullptr;  // no document below its kth_order is chosen; null: any
  const int32_t* n_candidates = nullptr;       // [1] where not null, goes into the selection
};

/// The k best of document_orders, highest first, ties by lower document; a document of order 0 is none.
void select_best(const SelectParams& p, cudaStream_t stream);

struct CandidateParams {
  ChunkList list;
  const int32_t* document_of_chunk = nullptr;
  const uint32_t* upper_orders = nullptr;        // [chunks of the list]
  const RoutingSelection* lower_best = nullptr;  // the k best lower bounds of documents
  int32_t* candidates = nullptr;                 // [kRoutingCandidates]
  int32_t* n_candidates = nullptr;               // [1] 0 before; may end above kRoutingCandidates
  uint32_t* document_uppers = nullptr;           // [n_documents] raised to the largest of their chunks
};

/// Chunks whose upper bound reaches the k-th best lower bound.
void collect_candidates(const CandidateParams& p, cudaStream_t stream);

/// queries F32 [m, n], n up to kMaxRoutingWidth, rounded to bf16 → out [m, quantised_key_bytes(n)].
void quantise_queries(const float* queries, int m, int n, void* out, cudaStream_t stream);

/// to [n] = the greater of orders [n] and what is there.
void raise_orders(const uint32_t* orders, int n, uint32_t* to, cudaStream_t stream);
/// lower, upper [n] from orders: the greater of `scores` and `lowers`, of `scores` and `uppers`.
void bounds_of_orders(const uint32_t* scores, const uint32_t* lowers, const uint32_t* uppers, int n, float* lower,
                      float* upper, cudaStream_t stream);

/// orders [n] → scores [n], -inf of order 0; of upper bounds a missing order cannot occur.
void scores_of_orders(const uint32_t* orders, int64_t n, float* scores, cudaStream_t stream);

}  // namespace msa
