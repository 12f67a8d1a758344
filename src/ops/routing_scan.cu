#include <algorithm>
#include <cstring>

#include "ops/routing_scan.h"
#include "ops/routing_scan_kernel.cuh"
#include "ops/routing_select.cuh"

namespace msa {
namespace {

constexpr size_t kAlignment = 256;

/// The parts of a scratch, in this order; what comes before `block_best` starts as zeros.
struct ScratchParts {
  struct Counters {
    uint32_t ticket;
    int32_t n_candidates;
  };
  Counters* counters;
  uint32_t* document_orders;  // [n_documents] of scores
  uint32_t* lower_orders;     // [n_documents] of lower bounds
  uint32_t* document_uppers;  // [n_documents] of upper bounds
  uint64_t* block_best;       // [kSelectBlocks, kMaxRoutingTopK]
  RoutingSelection* lower_best;
  int32_t* candidates;     // [kRoutingCandidates]
  uint32_t* upper_orders;  // [n_chunks]
  char* queries;           // [m, quantised_key_bytes(n)]
  size_t zero_bytes_scan;  // counters, document_orders
  size_t zero_bytes_both;  // and lower_orders, document_uppers
  size_t bytes;

  ScratchParts(void* data, int64_t n_chunks, int64_t n_documents, int n, int64_t m) {
    char* const begin = static_cast<char*>(data);
    size_t at = 0;
    const auto take = [&](auto*& part, int64_t count) {
      part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(begin + at);
      at += (static_cast<size_t>(count) * sizeof(*part) + kAlignment - 1) / kAlignment * kAlignment;
    };
    take(counters, 1);
    take(document_orders, n_documents);
    zero_bytes_scan = at;
    take(lower_orders, n_documents);
    take(document_uppers, n_documents);
    zero_bytes_both = at;
    take(block_best, kSelectBlocks * kMaxRoutingTopK);
    take(lower_best, 1);
    take(candidates, kRoutingCandidates);
    take(upper_orders, n_chunks);
    take(queries, m * static_cast<int64_t>(quantised_key_bytes(n)));
    bytes = at;
  }
};

cudaStream_t stream_of(const RoutingScratch& scratch) { return static_cast<cudaStream_t>(scratch.stream); }

int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

void check_query(const RoutingBank& bank, const RoutingQuery& query) {
  MSA_CHECK(bank.n >= kRoutingWidthStep && bank.n <= kMaxRoutingWidth && bank.n % kRoutingWidthStep == 0);
  MSA_CHECK(bank.n_chunks >= 1 && bank.n_chunks <= INT32_MAX && bank.n_documents >= 1);
  MSA_CHECK(query.m >= 1 && query.k >= 1 && query.k <= kMaxRoutingTopK);
  MSA_CHECK((query.rows == nullptr) == (query.n_rows == nullptr));
}

ScratchParts parts_of(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch) {
  check_query(bank, query);
  const ScratchParts parts(scratch.data, bank.n_chunks, bank.n_documents, bank.n, query.m);
  MSA_CHECK(parts.bytes <= scratch.bytes);
  return parts;
}

ChunkList list_of(const RoutingBank& bank, const RoutingQuery& query) {
  return {query.rows, query.n_rows, static_cast<int32_t>(bank.n_chunks)};
}

constexpr int kExactBits = 16;

/// Everything of a scan but its queries and outputs. bits: of a key's elements, 16, 8 or 4.
ScanParams scan_params(const RoutingBank& bank, const RoutingQuery& query, int bits) {
  const bool bounds = bits != kExactBits;
  ScanParams p;
  p.document_of_chunk = bank.document_of_chunk;
  p.list = list_of(bank, query);
  p.n = bank.n;
  p.query_bytes = static_cast<int64_t>(bounds ? quantised_key_bytes(bank.n) : bank.n * sizeof(float));
  p.slack = accumulation_slack(bank.n);
  p.keys = static_cast<const char*>(bounds ? bank.quantised_keys : bank.keys);
  p.row_bytes = static_cast<int>(bounds ? quantised_key_bytes(bank.n, bits) : bank.n * sizeof(bf16));
  p.stride = bounds ? p.row_bytes : p.row_bytes + 16;
  p.steps = (bounds ? bank.n : bank.n * static_cast<int>(sizeof(bf16))) / kStepBytes;
  p.parts = 1;
  while (p.parts * kMaxSteps < p.steps) p.parts *= 2;
  MSA_CHECK(p.parts <= kScanWarps);
  return p;
}

ScanKernel scan_kernel_for(int bits, int tiles) {
  return bits == kExactBits ? bf16_scan_kernel(tiles) : bits == 8 ? int8_scan_kernel(tiles) : int4_scan_kernel(tiles);
}

/// Tiles of queries for a kernel: enough for m if they can be had, else as many as leave room for a ring of tiles.
int tiles_for(const ScanParams& p, int m, int shared_bytes) {
  int tiles = 1;
  while (tiles < kMaxTiles && tiles * kTileQueries < m) tiles *= 2;
  const auto stages = [&] {
    const ScanLayout layout(p, tiles);
    return (shared_bytes - layout.ring) / layout.stage_bytes;
  };
  while (tiles > 1 && stages() < 3) tiles /= 2;
  MSA_CHECK(stages() >= 2);
  return tiles;
}

/// Scans once for every kMaxTiles * kTileQueries queries or fewer; queries [m, query_bytes].
void scan(ScanParams p, const void* queries, int m, int bits, cudaStream_t stream) {
  const int shared_bytes = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const int tiles = tiles_for(p, m, shared_bytes);
  const ScanLayout layout(p, tiles);
  p.stages = std::min(kMaxStages, (shared_bytes - layout.ring) / layout.stage_bytes);
  const int bytes = layout.ring + p.stages * layout.stage_bytes;
  const ScanKernel kernel = scan_kernel_for(bits, tiles);
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  const int64_t most = std::max(p.list.all, p.overflow_list.all);
  const unsigned blocks = static_cast<unsigned>(std::min<int64_t>((most + layout.tile_keys - 1) / layout.tile_keys,
                                                                  device_attribute(cudaDevAttrMultiProcessorCount)));
  for (int done = 0; done < m; done += tiles * kTileQueries) {
    p.queries = static_cast<const char*>(queries) + done * p.query_bytes;
    p.m = std::min(m - done, tiles * kTileQueries);
    p.again = done > 0;
    kernel<<<blocks, kBlockThreads, static_cast<size_t>(bytes), stream>>>(p);
    check_cuda(cudaGetLastError(), "scan_kernel");
  }
}

void scan_bf16(ScanParams p, const RoutingQuery& query, uint32_t* document_orders, cudaStream_t stream) {
  p.document_orders = document_orders;
  scan(p, query.queries, query.m, kExactBits, stream);
}

/// Fills upper_orders and lower_orders of the parts; per-chunk lower bounds too where wanted.
void scan_quantised(const RoutingBank& bank, const RoutingQuery& query, const ScratchParts& parts,
                    uint32_t* chunk_lower, cudaStream_t stream) {
  MSA_CHECK(bank.quantised_keys != nullptr);
  check_cuda(cudaMemsetAsync(parts.counters, 0, parts.zero_bytes_both, stream), "cudaMemsetAsync");
  quantise_queries(query.queries, query.m, bank.n, parts.queries, stream);
  MSA_CHECK(bank.key_bits == 8 || (bank.key_bits == 4 && bank.n % kPackedWidthStep == 0));
  ScanParams p = scan_params(bank, query, bank.key_bits);
  p.document_orders = parts.lower_orders;
  p.upper_orders = parts.upper_orders;
  p.lower_orders = chunk_lower;
  scan(p, parts.queries, query.m, bank.key_bits, stream);
}

SelectParams select_params(const ScratchParts& parts, int n_documents, int k) {
  SelectParams p;
  p.n_documents = n_documents;
  p.k = k;
  p.block_best = parts.block_best;
  p.ticket = &parts.counters->ticket;
  return p;
}

/// The chunks whose upper bound reaches the k-th best of the documents' lower bounds.
void collect(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch) {
  const ScratchParts parts = parts_of(bank, query, scratch);
  const cudaStream_t stream = stream_of(scratch);
  SelectParams select = select_params(parts, bank.n_documents, query.k);
  select.document_orders = parts.lower_orders;
  select.selection = parts.lower_best;
  select_best(select, stream);
  CandidateParams p;
  p.list = list_of(bank, query);
  p.document_of_chunk = bank.document_of_chunk;
  p.upper_orders = parts.upper_orders;
  p.lower_best = parts.lower_best;
  p.candidates = parts.candidates;
  p.n_candidates = &parts.counters->n_candidates;
  p.document_uppers = parts.document_uppers;
  collect_candidates(p, stream);
}

}  // namespace

size_t routing_scratch_bytes(int64_t n_chunks, int n_documents, int n, int m) {
  return ScratchParts(nullptr, n_chunks, n_documents, n, m).bytes;
}

void scan_documents(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch) {
  const ScratchParts parts = parts_of(bank, query, scratch);
  if (!query.more) clear_scores(bank.n_documents, scratch);
  scan_bf16(scan_params(bank, query, kExactBits), query, parts.document_orders, stream_of(scratch));
}

void select_documents(int n_documents, int k, const RoutingScratch& scratch, RoutingSelection* selection) {
  MSA_CHECK(n_documents >= 1 && k >= 1 && k <= kMaxRoutingTopK);
  const ScratchParts parts(scratch.data, 0, n_documents, 0, 0);
  SelectParams p = select_params(parts, n_documents, k);
  p.document_orders = parts.document_orders;
  p.selection = selection;
  select_best(p, stream_of(scratch));
}

void clear_scores(int n_documents, const RoutingScratch& scratch) {
  const ScratchParts parts(scratch.data, 0, n_documents, 0, 0);
  check_cuda(cudaMemsetAsync(parts.counters, 0, parts.zero_bytes_scan, stream_of(scratch)), "cudaMemsetAsync");
}

void document_scores(int n_documents, const RoutingScratch& scratch, float* scores) {
  const ScratchParts parts(scratch.data, 0, n_documents, 0, 0);
  scores_of_orders(parts.document_orders, n_documents, scores, stream_of(scratch));
}

void route_bf16(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch,
                RoutingSelection* selection) {
  scan_documents(bank, query, scratch);
  select_documents(bank.n_documents, query.k, scratch, selection);
}

void route_certified(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch,
                     RoutingSelection* selection) {
  scan_bounds(bank, query, scratch);
  collect(bank, query, scratch);  // without scores so far, the lower bounds are what they are
  score_candidates(bank, query, scratch);
  const ScratchParts parts = parts_of(bank, query, scratch);
  SelectParams select = select_params(parts, bank.n_documents, query.k);
  select.document_orders = parts.document_orders;
  select.selection = selection;
  select.n_candidates = &parts.counters->n_candidates;
  select.at_least = parts.lower_best;
  select_best(select, stream_of(scratch));
}

RoutingCandidates find_candidates(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch) {
  const ScratchParts parts = parts_of(bank, query, scratch);
  raise_orders(parts.document_orders, bank.n_documents, parts.lower_orders, stream_of(scratch));
  collect(bank, query, scratch);
  return {parts.candidates, &parts.counters->n_candidates};
}

/// Where the candidates do not fit their list, the same launch scans what the query asked for.
void score_candidates(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch) {
  const ScratchParts parts = parts_of(bank, query, scratch);
  ScanParams rescore = scan_params(bank, query, kExactBits);
  rescore.overflow_list = rescore.list;
  rescore.overflow = kRoutingCandidates;
  rescore.list = {parts.candidates, &parts.counters->n_candidates, kRoutingCandidates};
  scan_bf16(rescore, query, parts.document_orders, stream_of(scratch));
}

void document_bounds(int n_documents, const RoutingScratch& scratch, float* lower, float* upper) {
  const ScratchParts parts(scratch.data, 0, n_documents, 0, 0);
  bounds_of_orders(parts.document_orders, parts.lower_orders, parts.document_uppers, n_documents, lower, upper,
                   stream_of(scratch));
}

void scan_bounds(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch) {
  scan_quantised(bank, query, parts_of(bank, query, scratch), nullptr, stream_of(scratch));
}

void chunk_bounds(const RoutingBank& bank, const RoutingQuery& query, const RoutingScratch& scratch, float* lower,
                  float* upper) {
  const ScratchParts parts = parts_of(bank, query, scratch);
  const cudaStream_t stream = stream_of(scratch);
  // A chunk outside the list is never written: what it holds means nothing.
  scan_quantised(bank, query, parts, reinterpret_cast<uint32_t*>(lower), stream);
  scores_of_orders(reinterpret_cast<const uint32_t*>(lower), bank.n_chunks, lower, stream);
  scores_of_orders(parts.upper_orders, bank.n_chunks, upper, stream);
}

}  // namespace msa
