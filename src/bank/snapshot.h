// What a reader sees: the segments and which of their documents live, stable under later edits of the bank.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "bank/segment.h"

namespace msa {

/// One byte (0 or 1) per document of one segment, shared between snapshots until a removal makes a new one.
class LiveFlags {
 public:
  static LiveFlags all(const Segment& segment);
  static LiveFlags none(const Segment& segment);
  static LiveFlags of(const Segment& segment, std::vector<uint8_t> flags);  // [n_documents], 0 or 1
  struct Change {
    int64_t index = 0;
    bool live = false;
  };
  /// A copy in which these documents live or not, later changes over earlier ones.
  LiveFlags with(const Segment& segment, std::span<const Change> changes) const;

  uint8_t operator[](size_t index) const { return (*flags_)[index]; }
  size_t size() const { return flags_->size(); }
  const uint8_t* data() const { return flags_->data(); }
  operator std::span<const uint8_t>() const { return *flags_; }
  int64_t n_documents() const { return n_documents_; }  // live
  int64_t n_chunks() const { return n_chunks_; }        // of live documents

 private:
  std::shared_ptr<const std::vector<uint8_t>> flags_;
  int64_t n_documents_ = 0;
  int64_t n_chunks_ = 0;
};

/// Copying a snapshot or making the next one shares everything that did not change.
struct Snapshot {
  struct Slot {
    int segment = 0;
    int64_t index = 0;
  };

  BankShape shape;
  int64_t commit = 0;  // the bank's commit this state belongs to
  std::vector<std::shared_ptr<const Segment>> segments;
  std::vector<LiveFlags> live;  // per segment [n_documents]

  int64_t n_documents() const;                    // live
  int64_t n_chunks() const;                       // of live documents
  std::optional<Slot> find(DocumentId id) const;  // where a live document lies
  bool is_live(DocumentId id) const { return find(id).has_value(); }
};

}  // namespace msa
