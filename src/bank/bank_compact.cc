// Rewriting segments: compaction, which forgets what is not live, and the merging of small segments, which forgets
// nothing.
#include <algorithm>
#include <bit>
#include <map>

#include "bank/bank.h"
#include "bank/document_store.h"
#include "bank/segment_file.h"
#include "core/log.h"

namespace msa {

/// Segments to be replaced by new ones with the documents named.
struct SegmentPlan {
  struct Place {
    DocumentId id;
    const Segment* segment;
    int64_t index;
  };
  std::vector<std::shared_ptr<const Segment>> old_segments;
  std::vector<std::vector<Place>> groups;  // one new segment each; ids ascend
};

namespace {

constexpr size_t kSmallSegment = size_t{32} << 20;  // bytes; several of these are merged
constexpr size_t kTargetSegment = size_t{256}
                                  << 20;  // bytes a merged segment has at most, unless one document has more
constexpr size_t kMergedAtOnce = 8;

bool is_small(const Segment& segment) { return segment.bytes() < kSmallSegment; }

/// Takes a segment's documents, the removed ones only if asked for.
void take(const Snapshot& snapshot, size_t s, bool removed_too, SegmentPlan& plan,
          std::vector<SegmentPlan::Place>& places) {
  const auto& segment = snapshot.segments[s];
  plan.old_segments.push_back(segment);
  for (int64_t i = 0; i < segment->n_documents(); ++i) {
    const bool live = snapshot.live[s][static_cast<size_t>(i)] != 0;
    if (live || removed_too) places.push_back({segment->id(i), segment.get(), i});
  }
}

void group(const BankShape& shape, std::vector<SegmentPlan::Place> places, SegmentPlan& plan) {
  std::sort(places.begin(), places.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  size_t bytes = kTargetSegment;
  for (const SegmentPlan::Place& place : places) {
    const auto starts = place.segment->chunk_starts().subspan(static_cast<size_t>(place.index), 2);
    const size_t size = static_cast<size_t>((starts[1] - starts[0]) * shape.chunk_bytes());
    if (bytes + size > kTargetSegment) {
      plan.groups.emplace_back();
      bytes = 0;
    }
    plan.groups.back().push_back(place);
    bytes += size;
  }
}

SegmentPlan plan_compaction(const Snapshot& snapshot) {
  SegmentPlan plan;
  const bool merge = std::count_if(snapshot.segments.begin(), snapshot.segments.end(),
                                   [](const auto& segment) { return is_small(*segment); }) > 1;
  std::vector<SegmentPlan::Place> places;
  for (size_t s = 0; s < snapshot.segments.size(); ++s) {
    const Segment& segment = *snapshot.segments[s];
    const bool has_dead = snapshot.live[s].n_documents() < segment.n_documents();
    if (has_dead || (merge && is_small(segment))) take(snapshot, s, /*removed_too=*/false, plan, places);
  }
  group(snapshot.shape, std::move(places), plan);
  return plan;
}

/// Small segments within a factor of 8 in size, once there are 8 of them: a document moves at most once per factor of
/// 8, and however it was filled, a bank has few small segments.
SegmentPlan plan_merge(const Snapshot& snapshot) {
  std::map<int, std::vector<size_t>> tiers;
  for (size_t s = 0; s < snapshot.segments.size(); ++s) {
    const Segment& segment = *snapshot.segments[s];
    const auto data_bytes = static_cast<size_t>(segment.n_chunks() * snapshot.shape.chunk_bytes());
    if (is_small(segment)) tiers[static_cast<int>(std::bit_width(data_bytes) - 1) / 3].push_back(s);
  }
  SegmentPlan plan;
  for (const auto& [tier, members] : tiers) {
    if (members.size() < kMergedAtOnce) continue;
    std::vector<SegmentPlan::Place> places;
    for (const size_t s : members) take(snapshot, s, /*removed_too=*/true, plan, places);
    group(snapshot.shape, std::move(places), plan);
    break;
  }
  return plan;
}

void require_sound(const Segment& segment) {
  const std::vector<std::string> problems = segment.verify();
  if (problems.empty()) return;
  throw Error("the segment is damaged, rewriting would make the damage look sound", problems.front(),
              "repair it first: msa verify --repair");
}

int64_t bytes_of(std::span<const std::shared_ptr<const Segment>> segments) {
  int64_t bytes = 0;
  for (const auto& segment : segments) bytes += static_cast<int64_t>(segment->bytes());
  return bytes;
}

}  // namespace

void Bank::rewrite_segments(const SegmentPlan& plan, bool forget, const Progress& progress) {
  int64_t number = 0;
  {
    const std::lock_guard guard(mutex_);
    number = store_->next_segment();
  }
  const int64_t total = bytes_of(plan.old_segments);
  int64_t done = 0;
  for (const auto& segment : plan.old_segments) require_sound(*segment);

  DocumentStore::Rewriting rewriting;
  std::vector<std::shared_ptr<const Segment>> written;
  for (const auto& segment : plan.old_segments) rewriting.old_segments.push_back(segment->number());
  try {
    for (const auto& group : plan.groups) {
      std::vector<DocumentRows> rows;
      std::vector<DocumentId>& ids = rewriting.ids.emplace_back();
      for (const auto& place : group) {
        ids.push_back(place.id);
        rows.push_back(place.segment->rows(place.index));
      }
      written.push_back(write_new_segment(number++, ids, rows));
      rewriting.new_segments.push_back(row_of(*written.back()));
      done += static_cast<int64_t>(written.back()->bytes());
      if (progress) progress(std::min(done, total), total);
    }
    const std::lock_guard guard(mutex_);
    store_->rewrite(rewriting, forget);
  } catch (...) {
    const std::lock_guard guard(mutex_);
    for (const SegmentRow& row : rewriting.new_segments) discard_segment(row.number);
    throw;
  }
  const std::lock_guard guard(mutex_);
  committed(written);
  if (!path_.empty()) sweep_orphans(path_, store_->load(snapshot_->commit).segments);
}

CompactionResult Bank::compact(const Progress& progress) {
  require_writer();
  const std::lock_guard edit(edit_mutex_);
  std::shared_ptr<const Snapshot> before;
  CompactionResult result;
  {
    const std::lock_guard guard(mutex_);
    before = snapshot_;
    result.documents_forgotten = store_->statistics().deleted;
  }
  result.segments_before = static_cast<int64_t>(before->segments.size());
  result.bytes_before = bytes_of(before->segments);
  rewrite_segments(plan_compaction(*before), /*forget=*/true, progress);
  const std::lock_guard guard(mutex_);
  finish_compaction();
  result.segments_after = static_cast<int64_t>(snapshot_->segments.size());
  result.bytes_after = bytes_of(snapshot_->segments);
  return result;
}

void Bank::merge_small_segments() noexcept {
  try {
    for (;;) {
      const SegmentPlan plan = plan_merge(*snapshot_);  // only edits change it, and this is part of one
      if (plan.old_segments.empty()) return;
      rewrite_segments(plan, /*forget=*/false, {});
    }
  } catch (const Error& error) {  // what was to be added is; the next edit tries again
    spdlog::warn("{}: small segments are not merged: {}", path_.string(), error.what());
  }
}

void Bank::finish_compaction() {
  if (!store_->needs_scrub()) return;
  store_->scrub(lock_.get());
}

}  // namespace msa
