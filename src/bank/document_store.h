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

struct CommitNote;
struct Filter;

struct SlotChange {
  int64_t segment = 0;  // its number
  int64_t index = 0;
  bool live = false;
};

/// What a snapshot is made of, read in one transaction.
struct StoreState {
  int64_t commit = 0;
  std::vector<SegmentRow> segments;  // ascending by number
  std::vector<SlotChange> changes;   // later ones win
  bool from_nothing = false;         // changes begin at "no document lives", else at the state asked from
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
  int64_t last_commit() const;   // 0: none

  /// Changes when another connection commits.
  int64_t change_counter() const;
  StoreState load(int64_t since_commit) const;
  /// The state right after that commit, which is not before the horizon.
  StoreState load_at(int64_t commit) const;
  /// The last commit at or before a time. Throws Error when the text is no time, or compaction has forgotten part of
  /// the state then.
  int64_t commit_at(const std::string& time) const;
  /// A time in the bank's own notation. Throws Error when the text is none.
  std::string normal_time(const std::string& text) const;
  /// While it lives, everything read through this store is the state of one moment.
  std::shared_ptr<void> hold_view() const;

  /// Inputs whose external id is taken by an earlier input or, unless they are to be replaced, by a live document.
  std::vector<size_t> duplicates(std::span<const DocumentInput> inputs, bool replace) const;
  bool is_json_object(std::string_view text) const;
  bool is_certain() const;           // false after a commit of unknown outcome: every later edit is refused
  bool has_id(DocumentId id) const;  // removed documents too

  struct Addition {
    std::span<const SegmentRow> segments;  // one after another they hold the documents
    std::span<const DocumentId> ids;
    std::span<const DocumentInput> inputs;
    std::span<const DocumentSize> documents;
    std::span<const DocumentId> remove;  // in the same commit
    bool replace = false;                // remove the live documents of the same external ids too
    int64_t next_id = 0;
  };
  // Edits: one transaction each, durable when they return, undone on any Error.
  void add(const Addition& addition);
  std::vector<DocumentId> remove(std::span<const DocumentId> ids);  // those that were live
  /// Another version of a live document or, with `also_removed`, of one that can live again; false: there is none.
  bool change_metadata(DocumentId id, std::string_view metadata_json, bool also_removed);
  struct Rewriting {
    std::vector<int64_t> old_segments;
    std::vector<SegmentRow> new_segments;
    std::vector<std::vector<DocumentId>> ids;  // of each new segment
  };
  /// Documents move; with `forget`, removed documents and former versions lose their rows.
  void rewrite(const Rewriting& rewriting, bool forget);
  /// True from a forgetting rewrite until scrub() has returned.
  bool needs_scrub() const;
  /// Rebuilds the file so that no byte of a forgotten row is left in it or in the log.
  void scrub(const WriterLock* lock);
  /// After each edit: folds the log into the database and empties it. False when a reader is using the log.
  bool settle(const WriterLock& lock, bool wait_for_readers);
  /// Settles what a writer before left in the log.
  void recover(const WriterLock& lock);
  /// The log of this database holds what the note says is needed of it.
  static bool is_log_whole(const std::filesystem::path& file, const CommitNote& note);

  std::optional<DocumentRecord> find(DocumentId id) const;
  std::optional<DocumentRecord> find_at(DocumentId id, int64_t commit) const;
  std::optional<DocumentRecord> find_by_external_id(std::string_view name_space, std::string_view external_id) const;
  std::optional<DocumentRecord> find_unnamed(std::string_view name_space, std::string_view hash) const;
  std::optional<DocumentRecord> find_removed(std::string_view name_space, std::string_view external_id,
                                             std::string_view hash) const;
  std::vector<DocumentRecord> find_parts(std::string_view name_space, std::string_view name) const;
  std::vector<DocumentRecord> list(int64_t offset, int64_t limit) const;
  /// Ids of the documents of the state right after `commit` that the filter permits. Throws Error when it compares a
  /// field with a value that the field cannot have.
  std::vector<DocumentId> matching(const Filter& filter, int64_t commit) const;
  std::string fingerprint() const;
  BankStatistics statistics() const;  // documents, chunks, tokens, text_bytes, deleted

  void visit_documents(const std::function<void(const StoredDocument&)>& visit) const;  // removed ones too
  std::vector<StoredDocument> documents_of(int64_t segment) const;                      // by slot, with text
  std::vector<std::string> verify() const;                                              // SQLite's own checks

  struct Connection;  // of the store's own files

 private:
  explicit DocumentStore(std::unique_ptr<Connection> connection);
  void read_shape();
  void read_segments(StoreState& state) const;

  std::unique_ptr<Connection> db_;
  BankShape shape_;
};

}  // namespace msa
