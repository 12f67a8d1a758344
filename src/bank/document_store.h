// The bank's manifest in SQLite: documents, segments, commits (tables in docs/bank.md). The only place that knows
// SQLite.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bank/bank.h"

namespace msa {

struct SegmentRow {
  int64_t number = 0;
  int64_t n_documents = 0;
  int64_t n_chunks = 0;
  uint64_t checksum = 0;  // Segment::checksum
};

struct DeadSlot {
  int64_t segment = 0;  // its number
  int64_t index = 0;
};

/// What a snapshot is made of, read in one transaction.
struct StoreState {
  int64_t commit = 0;
  std::vector<SegmentRow> segments;  // ascending by number
  std::vector<DeadSlot> dead;        // removed after the commit that was asked for
};

/// One row of `documents` with its text, for verification.
struct StoredDocument {
  DocumentRecord record;
  int64_t segment = 0;
  int64_t index = 0;
};

/// One connection; not thread-safe. Every failure is an Error naming the file.
class DocumentStore {
 public:
  /// `file` is empty for a store in memory. Makes the tables; a file without any table counts as new.
  static std::unique_ptr<DocumentStore> create(const std::filesystem::path& file, const BankShape& shape);
  /// Null where the file does not exist or holds no table yet.
  static std::unique_ptr<DocumentStore> open(const std::filesystem::path& file, BankMode mode);
  ~DocumentStore();

  const BankShape& shape() const { return shape_; }
  int64_t next_id() const;       // larger than every id that was ever committed
  int64_t next_segment() const;  // larger than every segment number that was ever committed

  /// Changes when another connection commits.
  int64_t change_counter() const;
  StoreState load(int64_t since_commit) const;
  /// While it lives, everything read through this store is the state of one moment.
  std::shared_ptr<void> hold_view() const;

  /// Inputs whose external id is taken by a live document or an earlier input.
  std::vector<size_t> duplicates(std::span<const DocumentInput> inputs) const;
  bool is_json_object(std::string_view text) const;

  /// One transaction; returns the number of the commit. Rolled back on any Error.
  int64_t add(const SegmentRow& segment, std::span<const DocumentId> ids, std::span<const DocumentInput> inputs,
              std::span<const EncodedDocument> documents, int64_t next_id);
  struct Removal {
    int64_t commit = 0;
    DeadSlot slot;
  };
  std::optional<Removal> remove(DocumentId id);

  std::optional<DocumentRecord> find(DocumentId id, bool removed_too) const;
  std::optional<DocumentRecord> find_by_external_id(std::string_view name_space, std::string_view external_id) const;
  std::optional<DocumentRecord> find_by_hash(std::string_view name_space, std::string_view hash) const;
  std::vector<DocumentRecord> list(int64_t offset, int64_t limit) const;
  BankStatistics statistics() const;  // documents, chunks, tokens, text_bytes, deleted

  void visit_documents(const std::function<void(const StoredDocument&)>& visit) const;  // removed ones too
  std::vector<std::string> verify() const;                                              // SQLite's own checks

 private:
  struct Connection;
  explicit DocumentStore(std::unique_ptr<Connection> connection);
  void read_shape();

  std::unique_ptr<Connection> db_;
  BankShape shape_;
};

}  // namespace msa
