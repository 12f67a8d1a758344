// A snapshot's routing keys as one list of rows: all chunks of all segments in order, dead documents' too, so that
// removing a document moves nothing and adding one only appends.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "bank/snapshot.h"
#include "core/thread_pool.h"

namespace msa {

class KeyRows {
 public:
  explicit KeyRows(std::shared_ptr<const Snapshot> snapshot);

  int64_t n_rows() const { return row_starts_.back(); }
  int64_t n_slots() const { return n_slots_; }  // documents, dead ones too
  /// [n_slots + 1] the first row of every document, and the end.
  std::vector<int32_t> slot_starts() const;
  /// [n_rows] the document's place in the snapshot, -1 of a dead one.
  std::vector<int32_t> slots() const;

  /// Rows [begin, end) of a layer → to [end - begin, G·d].
  void copy(ThreadPool& pool, int layer, int64_t begin, int64_t end, void* to) const;
  /// The same of any rows, best ascending.
  void gather(ThreadPool& pool, int layer, std::span<const int32_t> rows, void* to) const;

  /// Leading rows that two snapshots have in common.
  static int64_t common_rows(const Snapshot& a, const Snapshot& b);

 private:
  size_t segment_of(int64_t row) const;

  std::shared_ptr<const Snapshot> snapshot_;
  std::vector<int64_t> row_starts_;  // [segments + 1]
  int64_t n_slots_ = 0;
};

}  // namespace msa
