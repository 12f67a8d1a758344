#include "router/key_rows.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace msa {
namespace {
constexpr int64_t kBytesAWorker = 1 << 18;
}

KeyRows::KeyRows(std::shared_ptr<const Snapshot> snapshot) : snapshot_(std::move(snapshot)), row_starts_{0} {
  for (const auto& segment : snapshot_->segments) {
    row_starts_.push_back(row_starts_.back() + segment->n_chunks());
    n_slots_ += segment->n_documents();
  }
}

std::vector<int32_t> KeyRows::slots() const {
  std::vector<int32_t> out;
  out.reserve(static_cast<size_t>(n_rows()));
  int32_t slot = 0;
  for (size_t s = 0; s < snapshot_->segments.size(); ++s) {
    const std::span<const int64_t> starts = snapshot_->segments[s]->chunk_starts();
    for (size_t i = 0; i + 1 < starts.size(); ++i, ++slot) {
      out.insert(out.end(), static_cast<size_t>(starts[i + 1] - starts[i]), snapshot_->live[s][i] != 0 ? slot : -1);
    }
  }
  return out;
}

std::vector<int32_t> KeyRows::slot_starts() const {
  std::vector<int32_t> out;
  out.reserve(static_cast<size_t>(n_slots_ + 1));
  for (size_t s = 0; s < snapshot_->segments.size(); ++s) {
    const std::span<const int64_t> starts = snapshot_->segments[s]->chunk_starts();
    for (size_t i = 0; i + 1 < starts.size(); ++i) out.push_back(static_cast<int32_t>(row_starts_[s] + starts[i]));
  }
  out.push_back(static_cast<int32_t>(n_rows()));
  return out;
}

size_t KeyRows::segment_of(int64_t row) const {
  return static_cast<size_t>(std::upper_bound(row_starts_.begin(), row_starts_.end(), row) - row_starts_.begin() - 1);
}

void KeyRows::copy(ThreadPool& pool, int layer, int64_t begin, int64_t end, void* to) const {
  MSA_CHECK(begin >= 0 && begin <= end && end <= n_rows());
  const int64_t bytes = snapshot_->shape.row_bytes();
  for (int64_t row = begin; row < end;) {
    const size_t s = segment_of(row);
    const int64_t stop = std::min(end, row_starts_[s + 1]), first = row - row_starts_[s];
    const Tensor keys = snapshot_->segments[s]->keys(layer).slice_rows(first, first + stop - row);
    char* const out = static_cast<char*>(to) + (row - begin) * bytes;
    pool.parallel_for(keys.rows() * bytes, kBytesAWorker, [&](int64_t from, int64_t until, int) {
      std::memcpy(out + from, keys.as<char>() + from, static_cast<size_t>(until - from));
    });
    row = stop;
  }
}

void KeyRows::gather(ThreadPool& pool, int layer, std::span<const int32_t> rows, void* to) const {
  const int64_t bytes = snapshot_->shape.row_bytes();
  std::vector<const char*> keys;  // per segment
  for (const auto& segment : snapshot_->segments) keys.push_back(segment->keys(layer).as<const char>());
  const auto n = static_cast<int64_t>(rows.size());
  pool.parallel_for(n, std::max<int64_t>(1, kBytesAWorker / bytes), [&](int64_t from, int64_t until, int) {
    for (int64_t i = from; i < until; ++i) {
      const int64_t row = rows[static_cast<size_t>(i)];
      const size_t s = segment_of(row);
      std::memcpy(static_cast<char*>(to) + i * bytes, keys[s] + (row - row_starts_[s]) * bytes,
                  static_cast<size_t>(bytes));
    }
  });
}

int64_t KeyRows::common_rows(const Snapshot& a, const Snapshot& b) {
  int64_t rows = 0;
  if (!(a.shape == b.shape)) return 0;
  for (size_t s = 0; s < std::min(a.segments.size(), b.segments.size()); ++s) {
    const Segment &x = *a.segments[s], &y = *b.segments[s];
    const bool same = &x == &y || (x.number() == y.number() && x.checksum() == y.checksum() && x.where() == y.where());
    if (!same) break;
    rows += x.n_chunks();
  }
  return rows;
}

}  // namespace msa
