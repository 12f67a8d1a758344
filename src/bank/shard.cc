#include "bank/shard.h"

#include <algorithm>
#include <utility>

#include "bank/segment_file.h"

namespace msa {
namespace {

/// Calls visit(segment index, begin, end) for every segment that the range touches: its documents [begin, end).
template <class Visit>
void for_each_piece(const Snapshot& snapshot, const SlotRange& range, const Visit& visit) {
  int64_t first = 0;  // slot of the segment's first document
  for (size_t s = 0; s < snapshot.segments.size(); ++s) {
    const int64_t n = snapshot.segments[s]->n_documents();
    const int64_t begin = std::clamp<int64_t>(range.begin - first, 0, n);
    const int64_t end = std::clamp<int64_t>(range.end - first, 0, n);
    if (begin < end) visit(s, begin, end);
    first += n;
  }
  MSA_CHECK(range.begin >= 0 && range.begin <= range.end && range.end <= first);
}

std::vector<uint8_t> flags_of(const LiveFlags& live, int64_t begin, int64_t end) {
  return {live.data() + begin, live.data() + end};
}

}  // namespace

std::vector<SlotRange> shard_ranges(const Snapshot& snapshot, int n) {
  MSA_CHECK(n >= 1);
  int64_t chunks = 0, slots = 0;
  for (const auto& segment : snapshot.segments) chunks += segment->n_chunks();
  for (const auto& segment : snapshot.segments) slots += segment->n_documents();
  std::vector<SlotRange> ranges;
  int64_t first_slot = 0, first_chunk = 0, begin = 0;  // of segment s; of the next range
  size_t s = 0;
  for (int r = 1; r < n; ++r) {
    const int64_t target = chunks / n * r + chunks % n * r / n;  // chunks before the cut
    while (s < snapshot.segments.size() && first_chunk + snapshot.segments[s]->n_chunks() < target) {
      first_slot += snapshot.segments[s]->n_documents();
      first_chunk += snapshot.segments[s++]->n_chunks();
    }
    int64_t cut = slots;
    if (s < snapshot.segments.size()) {
      const std::span<const int64_t> starts = snapshot.segments[s]->chunk_starts();
      cut = first_slot + (std::lower_bound(starts.begin(), starts.end(), target - first_chunk) - starts.begin());
    }
    ranges.push_back({begin, cut});
    begin = cut;
  }
  ranges.push_back({begin, slots});
  return ranges;
}

std::shared_ptr<const Snapshot> part_of(const Snapshot& snapshot, const SlotRange& range) {
  auto part = std::make_shared<Snapshot>();
  part->shape = snapshot.shape;
  part->commit = snapshot.commit;
  for_each_piece(snapshot, range, [&](size_t s, int64_t begin, int64_t end) {
    part->segments.push_back(Segment::part(snapshot.segments[s], begin, end));
    part->live.push_back(LiveFlags::of(*part->segments.back(), flags_of(snapshot.live[s], begin, end)));
  });
  return part;
}

ShardPlan plan_of(const Snapshot& snapshot, const SlotRange& range) {
  ShardPlan plan;
  plan.shape = snapshot.shape;
  plan.commit = snapshot.commit;
  for_each_piece(snapshot, range, [&](size_t s, int64_t begin, int64_t end) {
    const Segment& segment = *snapshot.segments[s];
    plan.pieces.push_back({row_of(segment), std::filesystem::absolute(segment.where()).string(), begin, end,
                           flags_of(snapshot.live[s], begin, end)});
  });
  return plan;
}

std::shared_ptr<const Snapshot> ShardOpener::open(const ShardPlan& plan) {
  std::map<int64_t, std::shared_ptr<const Segment>> opened;
  auto part = std::make_shared<Snapshot>();
  part->shape = plan.shape;
  part->commit = plan.commit;
  for (const ShardPlan::Piece& piece : plan.pieces) {
    const auto known = segments_.find(piece.segment.number);
    std::shared_ptr<const Segment> whole;
    if (known != segments_.end() && known->second->checksum() == piece.segment.checksum) {
      whole = known->second;
    } else if (bank_.empty()) {
      whole = Segment::open(piece.file, plan.shape);
      check_segment_matches(*whole, piece.segment);
    } else {
      whole = open_segment_file(bank_, plan.shape, piece.segment);
    }
    part->segments.push_back(Segment::part(whole, piece.begin, piece.end));
    part->live.push_back(LiveFlags::of(*part->segments.back(), piece.live));
    opened.emplace(piece.segment.number, std::move(whole));
  }
  segments_ = std::move(opened);
  return part;
}

}  // namespace msa
