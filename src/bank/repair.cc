#include <algorithm>
#include <utility>

#include "bank/segment_file.h"
#include "bank/segment_format.h"
#include "bank/verify.h"

namespace msa {
namespace {

/// One segment that is replaced by a sound one.
class SegmentRepair {
 public:
  SegmentRepair(DocumentStore& store, const std::filesystem::path& bank, const Bank::Reencode& reencode)
      : store_(store), bank_(bank), reencode_(reencode) {}

  /// False, with the reasons in `repair`, where a damaged document has no sound text.
  bool run(const SegmentRow& row, const std::shared_ptr<const Segment>& old, Bank::Repair& repair) {
    documents_ = store_.documents_of(row.number);
    const std::vector<bool> damaged = damaged_documents(old.get());
    if (!encode(damaged, repair)) return false;
    std::vector<DocumentRows> rows = rows_of(store_.shape(), encoded_);
    std::vector<DocumentRows> all;
    auto next = rows.begin();
    DocumentStore::Rewriting rewriting{{row.number}, {}, {{}}};
    for (size_t i = 0; i < documents_.size(); ++i) {
      rewriting.ids[0].push_back(documents_[i].record.id);
      all.push_back(damaged[i] ? std::move(*next++) : old->rows(documents_[i].index));
    }
    const auto segment = write_segment_file(bank_, store_.shape(), store_.next_segment(), rewriting.ids[0], all);
    rewriting.new_segments.push_back(row_of(*segment));
    store_.rewrite(rewriting, /*forget=*/false);
    return true;
  }

 private:
  std::vector<bool> damaged_documents(const Segment* old) const {
    std::vector<bool> damaged(documents_.size(), old == nullptr);
    if (old == nullptr) return damaged;
    const std::vector<int64_t> hit = old->documents_in(old->damaged_blocks());
    for (size_t i = 0; i < documents_.size(); ++i) {
      const int64_t index = documents_[i].index;
      damaged[i] = index < 0 || index >= old->n_documents() || old->id(index) != documents_[i].record.id ||
                   std::binary_search(hit.begin(), hit.end(), index);
    }
    return damaged;
  }

  bool encode(const std::vector<bool>& damaged, Bank::Repair& repair) {
    bool possible = true;
    for (size_t i = 0; i < documents_.size(); ++i) {
      const DocumentRecord& r = documents_[i].record;
      if (!damaged[i]) continue;
      if (!r.has_text || content_hash(r.text) != r.content_hash) {
        repair.beyond_repair.push_back("document " + std::to_string(r.id) + ": damaged, and its text is " +
                                       (r.has_text ? "damaged too" : "not in the bank"));
        possible = false;
      }
    }
    for (size_t i = 0; possible && i < documents_.size(); ++i) {
      const DocumentRecord& r = documents_[i].record;
      if (!damaged[i]) continue;
      encoded_.push_back(reencode_(r.id, r.text));
      if (encoded_.back().n_chunks != r.n_chunks) {
        repair.beyond_repair.push_back("document " + std::to_string(r.id) +
                                       ": its text gives another number of chunks");
        return false;
      }
      repair.reencoded.push_back(r.id);
    }
    return possible;
  }

  DocumentStore& store_;
  const std::filesystem::path& bank_;
  const Bank::Reencode& reencode_;
  std::vector<StoredDocument> documents_;
  std::vector<EncodedDocument> encoded_;  // of the damaged ones
};

}  // namespace

Bank::Repair repair_segments(DocumentStore& store, const std::filesystem::path& bank, const Bank::Reencode& reencode) {
  Bank::Repair repair;
  for (const SegmentRow& row : store.load(0).segments) {
    std::shared_ptr<const Segment> segment;
    try {
      segment = open_segment_file(bank, store.shape(), row);
      if (segment->damaged_blocks().empty()) continue;
    } catch (const Error&) {  // missing, cut or with a damaged header: all of its documents are encoded anew
    }
    SegmentRepair(store, bank, reencode).run(row, segment, repair);
  }
  sweep_orphans(bank, store.load(0).segments);
  return repair;
}

}  // namespace msa
