// A bank over several processes: which part of a snapshot each of them holds, and how it opens that part. Nothing on
// the disk knows of it: the parts follow from the snapshot and their number.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bank/document_store.h"
#include "bank/snapshot.h"

namespace msa {

/// Slots [begin, end) of a snapshot: its documents, dead ones too, segments in order.
struct SlotRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  friend bool operator==(const SlotRange&, const SlotRange&) = default;
};

/// All slots in `n` ranges one after another, of about as many chunks each; with fewer documents than ranges, or large
/// ones, some are empty.
std::vector<SlotRange> shard_ranges(const Snapshot& snapshot, int n);

/// The range as a snapshot of its own, whose segments are cut to it: slot 0 there is slot `begin` here.
std::shared_ptr<const Snapshot> part_of(const Snapshot& snapshot, const SlotRange& range);

/// What a process needs to open a part: the segments it touches and nothing of the others.
struct ShardPlan {
  struct Piece {
    SegmentRow segment;
    std::string file;            // where the process that made the plan has it
    int64_t begin = 0, end = 0;  // documents of the segment
    std::vector<uint8_t> live;   // [end - begin]
  };
  BankShape shape;
  int64_t commit = 0;
  std::vector<Piece> pieces;
};
ShardPlan plan_of(const Snapshot& snapshot, const SlotRange& range);

/// Opens parts of one bank's snapshots. Keeps the segments of the last one open.
class ShardOpener {
 public:
  /// `bank`: its folder as this process sees it; empty: the files lie where the plan says.
  explicit ShardOpener(std::filesystem::path bank = {}) : bank_(std::move(bank)) {}
  /// Equal to part_of() where the plan was made. Throws Error where a segment is missing, damaged or another one.
  std::shared_ptr<const Snapshot> open(const ShardPlan& plan);

 private:
  std::filesystem::path bank_;
  std::map<int64_t, std::shared_ptr<const Segment>> segments_;  // by number
};

}  // namespace msa
