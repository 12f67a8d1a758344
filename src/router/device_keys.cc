#include "router/device_keys.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "core/copy.h"
#include "core/cuda.h"
#include "core/log.h"
#include "ops/routing_quantise.h"
#include "ops/routing_scan.h"

namespace msa {
namespace {

constexpr int64_t kReserve = int64_t{2} << 30;  // of the GPU, for everything but keys and hot content

Tensor bytes_of(void* data, int64_t bytes, Device device) { return Tensor(data, DType::kI8, {bytes}, device); }

}  // namespace

/// One layer's query on its way.
struct DeviceKeys::Scan {
  RoutingBank bank;  // what lies on the GPU
  RoutingQuery query;
  RoutingScratch scratch;
};

/// Rows of keys in host memory: [begin, end), or a list.
struct DeviceKeys::HostRows {
  int64_t begin = 0, end = 0;
  bool listed = false;
  std::vector<int32_t> list;

  int64_t size() const { return listed ? static_cast<int64_t>(list.size()) : end - begin; }
};

/// Two pieces: while one travels, the next is filled.
struct DeviceKeys::Pieces {
  struct Piece {
    Staging memory;
    std::shared_ptr<CudaMark> arrived;
  };
  std::mutex mutex;
  std::array<Piece, 2> pieces;

  ~Pieces() {
    for (const Piece& piece : pieces) wait(piece.arrived.get());
  }
};

bool DeviceKeys::fits(const BankShape& shape) {
  return kHasCuda && shape.dtype == DType::kBF16 && shape.row_elements() % kRoutingWidthStep == 0 &&
         shape.row_elements() <= kMaxRoutingWidth;
}

DeviceKeys::DeviceKeys(Context& context, std::shared_ptr<const Snapshot> of, const DeviceOptions& options)
    : options_(options),
      n_layers_(of->shape.n_layers()),
      kv_heads_(of->shape.kv_heads),
      head_dim_(of->shape.head_dim),
      pieces_(std::make_shared<Pieces>()) {
  MSA_CHECK(fits(of->shape) && on_cuda(context.device));
  MSA_CHECK(follow(context, std::move(of)));
  report();
}

DeviceKeys::DeviceKeys(Context& context, const BankShape& shape, const Layout& layout, const Fill& fill,
                       const DeviceOptions& options)
    : options_(options),
      n_rows_(static_cast<int64_t>(layout.slot_of_chunk.size())),
      n_slots_(layout.n_slots),
      n_layers_(shape.n_layers()),
      kv_heads_(shape.kv_heads),
      head_dim_(shape.head_dim),
      slot_of_row_(layout.slot_of_chunk),
      pieces_(std::make_shared<Pieces>()) {
  MSA_CHECK(fits(shape) && on_cuda(context.device));
  placement_ = placement_for(context, n_rows_);
  if (placement_.bf16_rows < n_rows_) {
    throw Error("made-up keys lie on the GPU alone, and these do not fit it: " + describe(placement_, sizes()),
                "routing keys", "use a smaller bank, or a GPU with more memory");
  }
  reserve(context);
  for (int layer = 0; layer < n_layers_ && n_rows_ > 0; ++layer) {
    const Tensor keys(bf16_keys_[static_cast<size_t>(layer)].data(), DType::kBF16, {n_rows_, width()}, context.device);
    fill(layer, keys);
    if (has_bounds()) quantise(context, layer, keys, 0);
  }
  set_slots(context);
}

int64_t DeviceKeys::held_bytes() const {
  size_t bytes = 0;
  for (const auto* all : {&bf16_keys_, &quantised_keys_}) {
    for (const GrowingMemory& memory : *all) bytes += memory.capacity();
  }
  return static_cast<int64_t>(bytes);
}

KeyPlacement DeviceKeys::placement_for([[maybe_unused]] Context& context, int64_t rows) const {
  int64_t most = 0;
  if constexpr (kHasCuda) {
    most = static_cast<int64_t>(cuda_bytes(context.device.index).free) + held_bytes() - kReserve;
  }
  if (options_.gpu_memory > 0) most = std::min(most, options_.gpu_memory);
  return place_keys(options_.keys, {rows, n_layers_, width()}, most - DeviceOptions::content_share(most));
}

/// Room for the placement's rows.
void DeviceKeys::reserve([[maybe_unused]] Context& context) {
  MSA_CHECK(n_rows_ < std::numeric_limits<int32_t>::max() && n_slots_ < std::numeric_limits<int32_t>::max());
  size_t most = 0;
  if constexpr (kHasCuda) most = cuda_bytes(context.device.index).total;
  const auto room = [&](std::vector<GrowingMemory>& all, int64_t rows, size_t bytes_a_row) {
    for (size_t layer = 0; rows > 0 && layer < static_cast<size_t>(n_layers_); ++layer) {
      if (layer == all.size()) all.emplace_back(context.device, most);
      all[layer].grow(static_cast<size_t>(rows) * bytes_a_row);
    }
  };
  room(bf16_keys_, placement_.bf16_rows, static_cast<size_t>(row_bytes()));
  room(quantised_keys_, placement_.quantised_rows, quantised_key_bytes(width(), placement_.bits));
}

bool DeviceKeys::follow(Context& context, std::shared_ptr<const Snapshot> snapshot) {
  const BankShape& shape = snapshot->shape;
  if (shape.n_layers() != n_layers_ || shape.kv_heads != kv_heads_ || shape.head_dim != head_dim_) return false;
  KeyRows rows(snapshot);
  const KeyPlacement placement = placement_for(context, rows.n_rows());
  const bool same_kind = (placement.quantised_rows > 0) == (placement_.quantised_rows > 0) &&
                         (placement.bf16_rows > 0) == (placement_.bf16_rows > 0) && placement.bits == placement_.bits;
  if (snapshot_ != nullptr && !same_kind && n_rows_ > 0) return false;
  int64_t kept = snapshot_ == nullptr ? 0 : KeyRows::common_rows(*snapshot_, *snapshot);
  kept = std::min(kept, placement_.on_gpu());
  placement_ = placement;
  n_rows_ = rows.n_rows();
  n_slots_ = rows.n_slots();
  rows_.emplace(std::move(rows));
  snapshot_ = std::move(snapshot);
  slot_of_row_ = rows_->slots();
  slot_starts_ = rows_->slot_starts();
  reserve(context);
  upload(context, kept);
  set_slots(context);
  return true;
}

/// Rows from `first_row` on, as far as they have a place on the GPU.
void DeviceKeys::upload(Context& context, int64_t first_row) {
  HostRows rows;
  rows.begin = first_row;
  rows.end = std::max(first_row, placement_.on_gpu());
  for (int layer = 0; layer < n_layers_; ++layer) {
    for_each_piece(context, layer, rows, [&](const Tensor& keys, const Tensor&, int64_t at) {
      const int64_t first = first_row + at;
      if (placement_.bf16_rows > 0) {
        char* const to = static_cast<char*>(bf16_keys_[static_cast<size_t>(layer)].data()) + first * row_bytes();
        copy(context, keys, Tensor(to, DType::kBF16, {keys.rows(), width()}, context.device));
      }
      if (placement_.quantised_rows > 0) quantise(context, layer, keys, first);
    });
  }
  uploaded_rows_ += rows.size();
}

void DeviceKeys::quantise([[maybe_unused]] Context& context, int layer_index, const Tensor& keys, int64_t first_row) {
  char* const to = static_cast<char*>(quantised_keys_[static_cast<size_t>(layer_index)].data()) +
                   static_cast<size_t>(first_row) * quantised_key_bytes(width(), placement_.bits);
  if constexpr (kHasCuda) {
    quantise_keys_cuda(keys.as<bf16>(), keys.rows(), width(), placement_.bits, to, cuda_stream_handle(*context.cuda));
  }
}

void DeviceKeys::set_slots(Context& context) {
  if (n_rows_ == 0) return;
  to_device(context, Tensor::of_const(slot_of_row_.data(), DType::kI32, {n_rows_}), device_slot_of_row_);
  synchronize(context);
}

void DeviceKeys::report() const {
  const int64_t missing = n_rows_ - placement_.on_gpu();
  if (missing == 0) return spdlog::debug("{}", describe(placement_, sizes()));
  spdlog::info("{}: {:.1f} GB a question", describe(placement_, sizes()),
               static_cast<double>(missing * row_bytes() * n_layers_) / 1e9);
}

DeviceKeys::HostRows DeviceKeys::host_rows(int64_t begin, int64_t end, const Scope& scope) const {
  HostRows rows;
  rows.begin = begin;
  rows.end = end;
  if (scope.allowed.empty() || begin == end) return rows;
  MSA_CHECK(static_cast<int64_t>(scope.host_allowed.size()) == n_slots_);
  rows.listed = true;
  for (size_t slot = 0; slot < scope.host_allowed.size(); ++slot) {
    if (scope.host_allowed[slot] == 0 || slot_of_row_[static_cast<size_t>(slot_starts_[slot])] < 0) continue;
    const auto first = std::max<int64_t>(begin, slot_starts_[slot]);
    const auto last = std::min<int64_t>(end, slot_starts_[slot + 1]);
    for (int64_t row = first; row < last; ++row) rows.list.push_back(static_cast<int32_t>(row));
  }
  return rows;
}

/// Keys and slots of a piece go up in one copy; `use` gets them on the GPU and only enqueues work.
void DeviceKeys::for_each_piece(Context& context, int layer_index, const HostRows& rows, const Use& use) const {
  if (rows.size() == 0) return;
  MSA_CHECK(rows_.has_value());
  const std::lock_guard lock(pieces_->mutex);
  const int64_t a_row = row_bytes() + int64_t{sizeof(int32_t)};
  const int64_t most = std::clamp<int64_t>(options_.piece_bytes / a_row, 1, rows.size());
  const Tensor there = context.scratch[3].tensor(DType::kI8, {most * a_row}, context.device);
  size_t turn = 0;
  for (int64_t at = 0; at < rows.size(); at += most) {
    Pieces::Piece& piece = pieces_->pieces[turn++ % pieces_->pieces.size()];
    wait(piece.arrived.get());
    const int64_t count = std::min(most, rows.size() - at);
    const Tensor here = piece.memory.tensor(context, DType::kI8, {most * a_row});
    auto* const slots = reinterpret_cast<int32_t*>(here.as<char>() + count * row_bytes());
    if (rows.listed) {
      const std::span<const int32_t> part = std::span(rows.list).subspan(static_cast<size_t>(at));
      rows_->gather(context.pool, layer_index, part.first(static_cast<size_t>(count)), here.data);
      for (int64_t i = 0; i < count; ++i) slots[i] = slot_of_row_[static_cast<size_t>(part[static_cast<size_t>(i)])];
    } else {
      rows_->copy(context.pool, layer_index, rows.begin + at, rows.begin + at + count, here.data);
      std::copy_n(slot_of_row_.begin() + rows.begin + at, count, slots);
    }
    copy(context, bytes_of(here.data, count * a_row, {}), bytes_of(there.data, count * a_row, context.device));
    piece.arrived = mark(context);
    use(Tensor(there.data, DType::kBF16, {count, width()}, context.device),
        Tensor(there.as<char>() + count * row_bytes(), DType::kI32, {count}, context.device), at);
  }
}

DeviceKeys::Scan DeviceKeys::begin([[maybe_unused]] Context& context, int layer_index, const Tensor& q) const {
  MSA_CHECK(q.rows() >= 1 && q.row_elements() == width() && q.is_dense());
  Scan scan;
  const auto layer = static_cast<size_t>(layer_index);
  if (layer < bf16_keys_.size()) scan.bank.keys = static_cast<const bf16*>(bf16_keys_[layer].data());
  if (layer < quantised_keys_.size()) scan.bank.quantised_keys = quantised_keys_[layer].data();
  scan.bank.key_bits = placement_.bits;
  scan.bank.document_of_chunk = static_cast<const int32_t*>(device_slot_of_row_.data());
  scan.bank.n_documents = static_cast<int>(n_slots_);
  scan.bank.n = width();
  scan.query.queries = q.as<float>();
  scan.query.m = static_cast<int>(q.rows());
  scan.query.k = 1;  // the best are chosen from all scores
  scan.query.more = true;
  if constexpr (kHasCuda) {
    scan.scratch.bytes = routing_scratch_bytes(n_rows_, scan.bank.n_documents, width(), scan.query.m);
    context.scratch[1].reserve(scan.scratch.bytes, context.device);
    scan.scratch.data = context.scratch[1].data();
    scan.scratch.stream = cuda_stream_handle(*context.cuda);
    clear_scores(scan.bank.n_documents, scan.scratch);
  }
  return scan;
}

/// Leaves out what is not allowed of the bank's chunks.
void DeviceKeys::permit([[maybe_unused]] Context& context, const Scope& scope, Scan& scan) const {
  if (scope.allowed.empty()) return;
  MSA_CHECK(on_cuda(scope.allowed) && scope.allowed.dtype == DType::kI8 && scope.allowed.elements() == n_slots_);
  if constexpr (kHasCuda) {
    int32_t* const rows = context.scratch[2].tensor(DType::kI32, {n_rows_ + 1}, context.device).as<int32_t>();
    permitted_chunks(scan.bank, scope.allowed.as<uint8_t>(), rows, rows + n_rows_, scan.scratch.stream);
    scan.query.rows = rows;
    scan.query.n_rows = rows + n_rows_;
  }
}

void DeviceKeys::scan_from_host(Context& context, int layer_index, const HostRows& rows, const Scan& scan) const {
  for_each_piece(context, layer_index, rows, [&](const Tensor& keys, const Tensor& slots, int64_t) {
    RoutingBank bank = scan.bank;
    bank.keys = keys.as<bf16>();
    bank.document_of_chunk = slots.as<int32_t>();
    bank.n_chunks = keys.rows();
    RoutingQuery query = scan.query;
    query.rows = query.n_rows = nullptr;
    if constexpr (kHasCuda) scan_documents(bank, query, scan.scratch);
  });
}

void DeviceKeys::score(Context& context, int layer_index, const Tensor& q, const Scope& scope,
                       const Tensor& scores) const {
  MSA_CHECK(on_cuda(scores) && scores.dtype == DType::kF32 && scores.elements() == n_slots_);
  if (n_slots_ == 0) return;
  Scan scan = begin(context, layer_index, q);
  if constexpr (kHasCuda) {
    if (placement_.bf16_rows > 0) {
      scan.bank.n_chunks = placement_.bf16_rows;
      permit(context, scope, scan);
      scan_documents(scan.bank, scan.query, scan.scratch);
    }
    scan_from_host(context, layer_index, host_rows(placement_.bf16_rows, n_rows_, scope), scan);
    document_scores(scan.bank.n_documents, scan.scratch, scores.as<float>());
  }
}

void DeviceKeys::route(Context& context, int layer_index, const Tensor& q, const Scope& scope, int k,
                       const Tensor& scores, const Bounds& bounds) const {
  MSA_CHECK(has_bounds() && k >= 1 && k <= kMaxRoutingTopK);
  for (const Tensor* t : {&scores, &bounds.lower, &bounds.upper}) {
    MSA_CHECK(on_cuda(*t) && t->dtype == DType::kF32 && t->elements() == n_slots_);
  }
  Scan scan = begin(context, layer_index, q);
  scan.bank.n_chunks = placement_.quantised_rows;
  scan.query.k = k;
  if constexpr (kHasCuda) {
    permit(context, scope, scan);
    scan_bounds(scan.bank, scan.query, scan.scratch);
    scan_from_host(context, layer_index, host_rows(placement_.quantised_rows, n_rows_, scope), scan);
    const RoutingCandidates found = find_candidates(scan.bank, scan.query, scan.scratch);
    const Tensor count(const_cast<int32_t*>(found.count), DType::kI32, {1}, context.device);
    copy(context, count, bounds.candidates);
    if (placement_.bf16_rows > 0)
      score_candidates(scan.bank, scan.query, scan.scratch);
    else
      score_candidates_from_host(context, layer_index, scope, scan, found.rows, found.count);
    document_scores(scan.bank.n_documents, scan.scratch, scores.as<float>());
    document_bounds(scan.bank.n_documents, scan.scratch, bounds.lower.as<float>(), bounds.upper.as<float>());
  }
}

/// The bf16 keys of the candidates lie in host memory: which they are must be known there.
void DeviceKeys::score_candidates_from_host(Context& context, int layer_index, const Scope& scope, const Scan& scan,
                                            const int32_t* rows, const int32_t* count) const {
  int32_t n = 0;
  copy(context, Tensor(const_cast<int32_t*>(count), DType::kI32, {1}, context.device), Tensor(&n, DType::kI32, {1}));
  if (n > kRoutingCandidates) {
    return scan_from_host(context, layer_index, host_rows(0, placement_.quantised_rows, scope), scan);
  }
  HostRows candidates;
  candidates.listed = true;
  candidates.list.resize(static_cast<size_t>(n));
  copy(context, Tensor(const_cast<int32_t*>(rows), DType::kI32, {n}, context.device),
       Tensor(candidates.list.data(), DType::kI32, {n}));
  std::sort(candidates.list.begin(), candidates.list.end());
  scan_from_host(context, layer_index, candidates, scan);
}

std::shared_ptr<const DeviceKeys> device_keys(Context& context, const std::shared_ptr<const Snapshot>& snapshot,
                                              std::shared_ptr<DeviceKeys>& kept, const DeviceOptions& options) {
  if (!on_cuda(context.device) || !DeviceKeys::fits(snapshot->shape)) return nullptr;
  if (kept != nullptr && kept->snapshot() == snapshot) return kept;
  if (kept != nullptr) {
    const std::shared_ptr<DeviceKeys> mine = std::exchange(kept, nullptr);  // lost where following fails
    if (mine.use_count() == 1 && mine->follow(context, snapshot)) kept = mine;
  }
  if (kept == nullptr) kept = std::make_shared<DeviceKeys>(context, snapshot, options);
  return kept;
}

}  // namespace msa
