// The bank's edits: add, replace, remove, reinstate, compact.
#include <algorithm>
#include <numeric>

#include "bank/bank.h"
#include "bank/document_store.h"
#include "bank/segment_file.h"
#include "bank/segment_format.h"
#include "bank/writer_lock.h"
#include "core/log.h"
#include "io/file.h"

namespace msa {
namespace fs = std::filesystem;
namespace {

constexpr size_t kSmallSegment = size_t{32} << 20;  // bytes; several of these are merged
constexpr size_t kTargetSegment = size_t{256}
                                  << 20;  // bytes a merged segment has at most, unless one document has more

SegmentRow row_of(const Segment& segment) {
  return {segment.number(), segment.n_documents(), segment.n_chunks(), segment.checksum()};
}

/// Live documents of the segments that a compaction rewrites, as the new segments will hold them.
struct CompactionPlan {
  struct Place {
    DocumentId id;
    const Segment* segment;
    int64_t index;
  };
  std::vector<std::shared_ptr<const Segment>> old_segments;
  std::vector<std::vector<Place>> groups;  // ids ascend
};

CompactionPlan plan_compaction(const Snapshot& snapshot) {
  CompactionPlan plan;
  const auto is_small = [](const auto& segment) { return segment->bytes() < kSmallSegment; };
  const bool merge = std::count_if(snapshot.segments.begin(), snapshot.segments.end(), is_small) > 1;
  std::vector<CompactionPlan::Place> places;
  for (size_t s = 0; s < snapshot.segments.size(); ++s) {
    const auto& segment = snapshot.segments[s];
    const bool has_dead = snapshot.live[s].n_documents() < segment->n_documents();
    if (!has_dead && !(merge && is_small(segment))) continue;
    plan.old_segments.push_back(segment);
    for (int64_t i = 0; i < segment->n_documents(); ++i) {
      if (snapshot.live[s][static_cast<size_t>(i)] != 0) places.push_back({segment->id(i), segment.get(), i});
    }
  }
  std::sort(places.begin(), places.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  size_t bytes = kTargetSegment;
  for (const CompactionPlan::Place& place : places) {
    const auto starts = place.segment->chunk_starts().subspan(static_cast<size_t>(place.index), 2);
    const size_t size = static_cast<size_t>((starts[1] - starts[0]) * snapshot.shape.chunk_bytes());
    if (bytes + size > kTargetSegment) {
      plan.groups.emplace_back();
      bytes = 0;
    }
    plan.groups.back().push_back(place);
    bytes += size;
  }
  return plan;
}

void require_sound(const Segment& segment) {
  const std::vector<std::string> problems = segment.verify();
  if (problems.empty()) return;
  throw Error("the segment is damaged, compaction would make the damage look sound", problems.front(),
              "repair it first: msa verify --repair");
}

int64_t bytes_of(const Snapshot& snapshot) {
  int64_t bytes = 0;
  for (const auto& segment : snapshot.segments) bytes += static_cast<int64_t>(segment->bytes());
  return bytes;
}

}  // namespace

std::vector<DocumentId> Bank::reserve_ids(int64_t count) {
  require_writer();
  MSA_CHECK(count >= 0);
  const std::lock_guard guard(mutex_);
  std::vector<DocumentId> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), next_id_);
  next_id_ += count;
  return ids;
}

void Bank::skip_ids_below(DocumentId first) {
  require_writer();
  const std::lock_guard guard(mutex_);
  next_id_ = std::max(next_id_, first);
}

std::shared_ptr<const Segment> Bank::write_new_segment(int64_t number, std::span<const DocumentId> ids,
                                                       std::span<const DocumentRows> documents) const {
  if (path_.empty()) return segment_in_memory(shape(), number, ids, documents);
  return write_segment_file(path_, shape(), number, ids, documents);
}

void Bank::check_inputs(std::span<const DocumentInput> inputs) const {
  for (const DocumentInput& input : inputs) {
    if (input.metadata_json.empty() || store_->is_json_object(input.metadata_json)) continue;
    throw Error("the metadata is no JSON object: " + input.metadata_json.substr(0, 80),
                "document \"" + input.external_id + "\"", "give metadata as {\"key\": value}");
  }
}

AddResult Bank::add(std::span<const DocumentId> ids, std::span<const DocumentInput> inputs,
                    std::span<const EncodedDocument> documents, const AddOptions& options) {
  require_writer();
  MSA_CHECK(ids.size() == inputs.size() && ids.size() == documents.size());
  if (ids.empty()) {
    if (!options.remove.empty()) remove(options.remove);
    return {};
  }
  const std::lock_guard edit(edit_mutex_);
  int64_t number = 0;
  {
    const std::lock_guard guard(mutex_);
    MSA_CHECK(ids.back() < next_id_);
    check_inputs(inputs);
    AddResult result{store_->duplicates(inputs, options.replace)};
    if (!result.committed()) return result;
    number = store_->next_segment();
  }
  const std::shared_ptr<const Segment> segment = write_new_segment(number, ids, rows_of(shape(), documents));
  const std::lock_guard guard(mutex_);
  try {
    store_->add({row_of(*segment), ids, inputs, documents, options.remove, options.replace, next_id_});
  } catch (...) {
    discard_segment(number);
    throw;
  }
  committed({&segment, 1});
  return {};
}

void Bank::committed(std::span<const std::shared_ptr<const Segment>> written) {
  snapshot_ = follow(store_->load(snapshot_->commit), written);
  if (path_.empty()) return;
  store_->settle(*lock_, /*wait_for_readers=*/false);
}

void Bank::discard_segment(int64_t number) const noexcept {
  if (path_.empty()) return;
  try {
    std::error_code ignored;
    if (store_->is_certain() && store_->next_segment() <= number) {
      fs::remove_all(segment_folder(path_, number), ignored);
    }
  } catch (const Error&) {  // the database cannot tell: the next opening sweeps what is not committed
  }
}

std::vector<DocumentId> Bank::remove(std::span<const DocumentId> ids) {
  require_writer();
  const std::lock_guard edit(edit_mutex_);
  const std::lock_guard guard(mutex_);
  std::vector<DocumentId> removed = store_->remove(ids);
  if (!removed.empty()) committed();
  return removed;
}

bool Bank::reinstate(DocumentId id, std::string_view metadata_json) {
  require_writer();
  const std::lock_guard edit(edit_mutex_);
  const std::lock_guard guard(mutex_);
  if (!store_->is_json_object(metadata_json)) {
    throw Error("the metadata is no JSON object: " + std::string(metadata_json.substr(0, 80)),
                "document " + std::to_string(id), "give metadata as {\"key\": value}");
  }
  if (!store_->reinstate(id, metadata_json)) return false;
  committed();
  return true;
}

CompactionResult Bank::compact(const Progress& progress) {
  require_writer();
  const std::lock_guard edit(edit_mutex_);
  std::shared_ptr<const Snapshot> before;
  int64_t number = 0;
  CompactionResult result;
  {
    const std::lock_guard guard(mutex_);
    before = snapshot_;
    number = store_->next_segment();
    result.documents_forgotten = store_->statistics().deleted;
  }
  const CompactionPlan plan = plan_compaction(*before);
  result.segments_before = static_cast<int64_t>(before->segments.size());
  result.bytes_before = bytes_of(*before);
  int64_t total = 0, done = 0;
  for (const auto& segment : plan.old_segments) total += static_cast<int64_t>(segment->bytes());
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
    store_->rewrite(rewriting, /*forget=*/true);
  } catch (...) {
    const std::lock_guard guard(mutex_);
    for (const SegmentRow& row : rewriting.new_segments) discard_segment(row.number);
    throw;
  }
  const std::lock_guard guard(mutex_);
  committed(written);
  if (!path_.empty()) sweep_orphans(path_, store_->load(0).segments);
  finish_compaction();
  result.segments_after = static_cast<int64_t>(snapshot_->segments.size());
  result.bytes_after = bytes_of(*snapshot_);
  return result;
}

void Bank::finish_compaction() {
  if (!store_->needs_scrub()) return;
  store_->scrub(lock_.get());
}

}  // namespace msa
