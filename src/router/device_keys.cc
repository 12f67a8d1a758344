#include "router/device_keys.h"

#include <limits>
#include <utility>

#include "core/copy.h"
#include "core/cuda.h"
#include "ops/fold_heads.h"
#include "ops/routing_scan.h"

namespace msa {
namespace {

constexpr float kDead = -std::numeric_limits<float>::infinity();

/// Neighbouring live documents of one segment: their chunks lie in one piece.
struct Run {
  int segment;
  int64_t first_chunk, end_chunk;
};

std::vector<Run> live_runs(const Snapshot& snapshot) {
  std::vector<Run> runs;
  for (size_t s = 0; s < snapshot.segments.size(); ++s) {
    const std::span<const int64_t> starts = snapshot.segments[s]->chunk_starts();
    const LiveFlags& live = snapshot.live[s];
    bool extends = false;
    for (size_t i = 0; i + 1 < starts.size(); ++i) {
      if (live[i] != 0 && extends) runs.back().end_chunk = starts[i + 1];
      if (live[i] != 0 && !extends) runs.push_back({static_cast<int>(s), starts[i], starts[i + 1]});
      extends = live[i] != 0;
    }
  }
  return runs;
}

DeviceKeys::Layout layout_of(const Snapshot& snapshot) {
  DeviceKeys::Layout layout;
  for (size_t s = 0; s < snapshot.segments.size(); ++s) {
    const std::span<const int64_t> starts = snapshot.segments[s]->chunk_starts();
    for (size_t i = 0; i + 1 < starts.size(); ++i, ++layout.n_slots) {
      if (snapshot.live[s][i] == 0) continue;
      const auto chunks = static_cast<size_t>(starts[i + 1] - starts[i]);
      layout.slot_of_chunk.insert(layout.slot_of_chunk.end(), chunks, static_cast<int32_t>(layout.n_slots));
    }
  }
  return layout;
}

/// The keys of all live documents of one layer into keys [live chunks, G·d] on the GPU.
void upload_keys(Context& context, const Snapshot& snapshot, int layer, const Tensor& keys) {
  int64_t row = 0;
  for (const Run& run : live_runs(snapshot)) {
    const int64_t count = run.end_chunk - run.first_chunk;
    const Segment& segment = *snapshot.segments[static_cast<size_t>(run.segment)];
    copy(context, segment.keys(layer).slice_rows(run.first_chunk, run.end_chunk), keys.slice_rows(row, row + count));
    row += count;
  }
  MSA_CHECK(row == keys.rows());
}

}  // namespace

bool DeviceKeys::fits(const BankShape& shape) {
  return kHasCuda && shape.dtype == DType::kBF16 && shape.row_elements() % kRoutingWidthStep == 0 &&
         shape.row_elements() <= kMaxRoutingWidth;
}

DeviceKeys::DeviceKeys(Context& context, std::shared_ptr<const Snapshot> of)
    : DeviceKeys(context, of->shape, layout_of(*of),
                 [&](int layer, const Tensor& keys) { upload_keys(context, *of, layer, keys); }) {
  snapshot_ = std::move(of);
}

DeviceKeys::DeviceKeys(Context& context, const BankShape& shape, const Layout& layout, const Fill& fill)
    : n_slots_(layout.n_slots),
      n_chunks_(static_cast<int64_t>(layout.slot_of_chunk.size())),
      kv_heads_(shape.kv_heads),
      head_dim_(shape.head_dim) {
  MSA_CHECK(fits(shape) && on_cuda(context.device));
  MSA_CHECK(n_chunks_ < std::numeric_limits<int32_t>::max() && n_slots_ < std::numeric_limits<int32_t>::max());
  if (n_chunks_ == 0) return;
  for (int layer = 0; layer < shape.n_layers(); ++layer) {
    fill(layer, keys_.emplace_back().tensor(DType::kBF16, {n_chunks_, shape.row_elements()}, context.device));
  }
  to_device(context, Tensor::of_const(layout.slot_of_chunk.data(), DType::kI32, {n_chunks_}), slot_of_chunk_);
  synchronize(context);
}

void DeviceKeys::score(Context& context, int layer_index, const Tensor& q, const Scoring& how,
                       const Tensor& scores) const {
  MSA_CHECK(q.rows() >= 1 && q.row_elements() == int64_t{how.n_heads} * head_dim_);
  MSA_CHECK(on_cuda(scores) && scores.dtype == DType::kF32 && scores.elements() == n_slots_);
  if (n_slots_ == 0) return;
  if (n_chunks_ == 0) {
    const std::vector<float> dead(static_cast<size_t>(n_slots_), kDead);
    return copy(context, Tensor::of_const(dead.data(), DType::kF32, {n_slots_}), scores);
  }
  const Tensor folded = context.scratch[0].tensor(DType::kF32, {q.rows(), kv_heads_ * head_dim_}, context.device);
  fold_heads_on_device(context, q, how.n_heads, kv_heads_, how.similarity == Similarity::kCosine, folded);
  if constexpr (kHasCuda) {
    RoutingBank bank;
    bank.keys = static_cast<const bf16*>(keys_[static_cast<size_t>(layer_index)].data());
    bank.document_of_chunk = static_cast<const int32_t*>(slot_of_chunk_.data());
    bank.n_chunks = n_chunks_;
    bank.n_documents = static_cast<int>(n_slots_);
    bank.n = kv_heads_ * head_dim_;
    RoutingQuery query;
    query.queries = folded.as<float>();
    query.m = static_cast<int>(q.rows());
    query.k = 1;  // the best are chosen from all scores
    void* const stream = cuda_stream_handle(*context.cuda);
    if (!how.allowed.empty()) {
      MSA_CHECK(on_cuda(how.allowed) && how.allowed.dtype == DType::kI8 && how.allowed.elements() == n_slots_);
      int32_t* const rows = context.scratch[2].tensor(DType::kI32, {n_chunks_ + 1}, context.device).as<int32_t>();
      permitted_chunks(bank, how.allowed.as<uint8_t>(), rows, rows + n_chunks_, stream);
      query.rows = rows;
      query.n_rows = rows + n_chunks_;
    }
    const size_t bytes = routing_scratch_bytes(n_chunks_, bank.n_documents, bank.n, query.m);
    Buffer& memory = context.scratch[1];
    memory.reserve(bytes, context.device);
    const RoutingScratch scratch{memory.data(), bytes, stream};
    scan_documents(bank, query, scratch);
    document_scores(bank.n_documents, scratch, scores.as<float>());
  }
}

std::shared_ptr<const DeviceKeys> device_keys(Context& context, const std::shared_ptr<const Snapshot>& snapshot,
                                              std::shared_ptr<const DeviceKeys>& kept) {
  if (!on_cuda(context.device) || !DeviceKeys::fits(snapshot->shape)) return nullptr;
  if (kept == nullptr || kept->snapshot() != snapshot) {
    kept.reset();  // makes room first
    kept = std::make_shared<DeviceKeys>(context, snapshot);
  }
  return kept;
}

}  // namespace msa
