// The bank's edits: add, replace, remove, change metadata, reinstate.
#include <algorithm>
#include <numeric>

#include "bank/bank.h"
#include "bank/document_store.h"
#include "bank/segment_file.h"
#include "bank/segment_format.h"

namespace msa {
namespace fs = std::filesystem;

std::vector<DocumentId> Bank::reserve_ids(int64_t count) {
  require_writer();
  MSA_CHECK(count >= 0);
  const std::lock_guard guard(mutex_);
  std::vector<DocumentId> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), next_id_);
  next_id_ += count;
  return ids;
}

DocumentId Bank::next_id() const {
  const std::lock_guard guard(mutex_);
  return next_id_;
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
  MSA_CHECK(ids.size() == documents.size());
  const auto write = [&](int64_t number) {
    WrittenSegments written;
    written.opened = {write_new_segment(number, ids, rows_of(shape(), documents))};
    written.segments = {row_of(*written.opened[0])};
    for (const EncodedDocument& d : documents) written.documents.push_back({d.n_tokens, d.n_chunks});
    return written;
  };
  return add(ids, inputs, write, options);
}

AddResult Bank::add(std::span<const DocumentId> ids, std::span<const DocumentInput> inputs, const SegmentWriter& write,
                    const AddOptions& options) {
  require_writer();
  MSA_CHECK(ids.size() == inputs.size());
  const std::lock_guard edit(edit_mutex_);
  int64_t number = 0;
  {
    const std::lock_guard guard(mutex_);
    check_inputs(inputs);
    AddResult result{store_->duplicates(inputs, options.replace), {}};
    for (const DocumentId id : options.only_if_live) {
      if (!store_->find(id)) result.gone.push_back(id);
    }
    if (!result.committed()) return result;
    if (ids.empty()) {
      if (!options.remove.empty() && !store_->remove(options.remove).empty()) committed();
      return result;
    }
    MSA_CHECK(ids.back() < next_id_);
    number = store_->next_segment();
  }
  const WrittenSegments written = write(number);
  {
    const std::lock_guard guard(mutex_);
    try {
      store_->add({written.segments, ids, inputs, written.documents, options.remove, options.replace, next_id_});
    } catch (...) {
      for (const SegmentRow& row : written.segments) discard_segment(row.number);
      throw;
    }
    committed(written.opened);
  }
  merge_small_segments();
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

bool Bank::change_metadata(DocumentId id, std::string_view metadata_json) {
  return change_metadata(id, metadata_json, /*also_removed=*/false);
}

bool Bank::reinstate(DocumentId id, std::string_view metadata_json) {
  return change_metadata(id, metadata_json, /*also_removed=*/true);
}

bool Bank::change_metadata(DocumentId id, std::string_view metadata_json, bool also_removed) {
  require_writer();
  const std::lock_guard edit(edit_mutex_);
  const std::lock_guard guard(mutex_);
  if (!store_->is_json_object(metadata_json)) {
    throw Error("the metadata is no JSON object: " + std::string(metadata_json.substr(0, 80)),
                "document " + std::to_string(id), "give metadata as {\"key\": value}");
  }
  if (!store_->change_metadata(id, metadata_json, also_removed)) return false;
  committed();
  return true;
}

}  // namespace msa
