// The bank: all documents of one memory, encoded by one model, on disk or in memory (DESIGN section 4, docs/bank.md).
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bank/segment.h"
#include "bank/snapshot.h"

namespace msa {

class DocumentStore;
class WriterLock;
struct Filter;
struct SegmentPlan;
struct StoreState;

enum class BankMode { kRead, kWrite };  // many readers, one writer

struct DocumentInput {
  std::string text;
  std::string external_id;  // unique among the live documents of a namespace; empty = none
  std::string name_space;
  std::string metadata_json;       // a JSON object; empty = {}
  std::string withheld_hash = {};  // not empty: the text is unknown, this is its content_hash
};

struct DocumentRecord {
  DocumentId id = 0;
  std::string external_id;
  std::string name_space;
  std::string metadata_json;
  std::string text;      // empty in lists
  bool has_text = true;  // false: it was withheld when the document was imported
  int64_t version = 1;   // 1, 2, … of the same external id
  int64_t n_tokens = 0;
  int64_t n_chunks = 0;
  int64_t text_bytes = 0;
  std::string content_hash;  // content_hash(text)
  std::string created;       // UTC, "2026-01-31T12:34:56.789Z"
};

struct AddOptions {
  bool replace = false;                       // end the live documents of the same external ids in the same commit
  std::vector<DocumentId> remove;             // end these too
  std::vector<DocumentId> only_if_live = {};  // else nothing is committed
};

struct AddResult {
  std::vector<size_t> duplicates;  // inputs whose external id a live document, or an earlier input, already has
  std::vector<DocumentId> gone;    // of only_if_live: those that are not
  bool committed() const { return duplicates.empty() && gone.empty(); }
};

struct CompactionResult {
  int64_t segments_before = 0, segments_after = 0;
  int64_t bytes_before = 0, bytes_after = 0;  // of all segments
  int64_t documents_forgotten = 0;
};

struct BankStatistics {
  int64_t documents = 0;  // live; so are chunks, tokens, text_bytes
  int64_t chunks = 0;
  int64_t tokens = 0;
  int64_t text_bytes = 0;
  int64_t deleted = 0;  // removed documents that still take space
  int64_t segments = 0;
  int64_t key_bytes = 0;      // of all segments, removed documents included
  int64_t content_bytes = 0;  // of all segments, removed documents included
};

/// xxh3-128 of the text, 32 hex digits.
std::string content_hash(std::string_view text);

/// Safe to use from several threads. Edits are serial; a snapshot or a look-up waits only for an edit's last step.
class Bank {
 public:
  using Progress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

  /// Opens the bank in folder `path`; kWrite makes it where there is none. Throws Error when the bank belongs to
  /// another model or shape, is damaged, or (kWrite) another process writes to it.
  static std::unique_ptr<Bank> create_or_open(const std::filesystem::path& path, const BankShape& shape, BankMode mode);
  /// Opens an existing bank, whatever model it belongs to: for list, stat, remove, verify.
  static std::unique_ptr<Bank> open(const std::filesystem::path& path, BankMode mode);
  /// Nothing on disk; otherwise the same.
  static std::unique_ptr<Bank> in_memory(const BankShape& shape);
  /// Reads every byte of a bank, also of one too damaged to open; a sentence for each problem, none = sound.
  static std::vector<std::string> verify(const std::filesystem::path& path, const Progress& progress = {});
  struct Repair {
    std::vector<DocumentId> reencoded;
    std::vector<std::string> beyond_repair;  // a sentence each
  };
  /// What the model makes of a document's text under its id.
  using Reencode = std::function<EncodedDocument(DocumentId id, const std::string& text)>;
  /// Replaces damaged and missing segments: what is damaged in them is encoded anew from the text, the rest is kept.
  static Repair repair(const std::filesystem::path& path, const BankShape& shape, const Reencode& reencode);
  ~Bank();
  Bank(const Bank&) = delete;
  Bank& operator=(const Bank&) = delete;

  const BankShape& shape() const;
  const std::filesystem::path& path() const { return path_; }  // empty in memory
  BankMode mode() const { return mode_; }

  /// `count` new ids, ascending. An id is part of what is encoded, so it is asked for before; unused ones are gaps.
  std::vector<DocumentId> reserve_ids(int64_t count);

  /// The id that a document added now would get; 1 in a bank that never gave one.
  DocumentId next_id() const;

  /// No id below `first` will be given: banks whose ids do not meet merge without encoding anything anew.
  void skip_ids_below(DocumentId first);

  /// One atomic commit, one new segment: all documents or, where AddResult says so or with an Error, none. The three
  /// spans run in parallel; ids are ascending and reserved. Throws Error on metadata that is no JSON object or a disk
  /// that is full.
  [[nodiscard]] AddResult add(std::span<const DocumentId> ids, std::span<const DocumentInput> inputs,
                              std::span<const EncodedDocument> documents, const AddOptions& options = {});
  /// The same with segments that others write: `write` gets the first free number and writes as many as it likes from
  /// there on, the last of its numbers always, so that none of them is ever given again. What it throws undoes all.
  struct WrittenSegments {
    std::vector<SegmentRow> segments;                         // one after another they hold the documents
    std::vector<DocumentSize> documents;                      // by id
    std::vector<std::shared_ptr<const Segment>> opened = {};  // those of them that need not be opened
  };
  using SegmentWriter = std::function<WrittenSegments(int64_t first_number)>;
  [[nodiscard]] AddResult add(std::span<const DocumentId> ids, std::span<const DocumentInput> inputs,
                              const SegmentWriter& write, const AddOptions& options = {});
  /// False if the document is not live. Later snapshots do not contain it.
  bool remove(DocumentId id) { return !remove(std::span(&id, 1)).empty(); }
  /// One commit; returns those that were live.
  std::vector<DocumentId> remove(std::span<const DocumentId> ids);
  /// Gives a live document other metadata, without encoding it. False if it is not live.
  bool change_metadata(DocumentId id, std::string_view metadata_json);
  /// The same, and life again if it was removed since the last compaction. False if there is no such document, or
  /// another one has its external id by now.
  bool reinstate(DocumentId id, std::string_view metadata_json);
  /// Forgets removed documents and former versions: their rows, text, keys and content leave the disk. Merges small
  /// segments. Snapshots taken before stay valid. Throws Error on a damaged segment, a full disk or a stuck reader; the
  /// bank is then as before, or compacted except for what the next opening finishes.
  CompactionResult compact(const Progress& progress = {});

  /// Live documents only, with text. Throws Error when the text does not match its hash.
  std::optional<DocumentRecord> find(DocumentId id) const;
  std::optional<DocumentRecord> find_by_external_id(std::string_view name_space, std::string_view external_id) const;
  /// The one of this text without an external id.
  std::optional<DocumentRecord> find_unnamed(std::string_view name_space, std::string_view hash) const;
  /// A document of the snapshot as it was then, also when it was removed since, unless it was forgotten.
  std::optional<DocumentRecord> find(DocumentId id, const Snapshot& snapshot) const;
  bool has_id(DocumentId id) const;  // removed documents too
  /// A removed document with this external id and text that reinstate() can bring back.
  std::optional<DocumentRecord> find_removed(std::string_view name_space, std::string_view external_id,
                                             std::string_view hash) const;
  /// Live documents whose external id is `name` or `name` with "#" and a number, without text.
  std::vector<DocumentRecord> find_parts(std::string_view name_space, std::string_view name) const;
  /// Which documents of the snapshot a filter permits: [documents of all its segments], 1 or 0, for the router.
  std::vector<uint8_t> permitted(const Snapshot& snapshot, const Filter& filter) const;
  /// Live documents without text, ascending by id. A limit below 0 means all.
  std::vector<DocumentRecord> list(int64_t offset = 0, int64_t limit = -1) const;
  int64_t size() const;  // live documents
  BankStatistics statistics() const;
  /// A hash of all that the live documents are: ids, names, metadata, text. Equal for a bank built without the removed.
  std::string fingerprint() const;

  /// The last committed state; a reader sees what the writer committed meanwhile.
  std::shared_ptr<const Snapshot> snapshot() const;
  /// The state at a time ("2026-01-31", "2026-01-31T12:00:00+01:00"). Throws Error when the text is no time or
  /// compaction has forgotten part of the state then.
  std::shared_ptr<const Snapshot> snapshot_at(const std::string& time) const;

  /// As the static verify, of this bank.
  std::vector<std::string> verify(const Progress& progress = {}) const;

 private:
  Bank(std::filesystem::path path, BankMode mode, std::unique_ptr<WriterLock> lock,
       std::unique_ptr<DocumentStore> store);
  static std::unique_ptr<Bank> open_folder(const std::filesystem::path& path, const BankShape* shape, BankMode mode);
  void refresh() const;  // mutex_ held
  std::shared_ptr<const Snapshot> follow(
      const StoreState& state, std::span<const std::shared_ptr<const Segment>> written = {}) const;  // mutex_ held
  void committed(std::span<const std::shared_ptr<const Segment>> written = {});                      // mutex_ held
  void rewrite_segments(const SegmentPlan& plan, bool forget, const Progress& progress);
  void merge_small_segments() noexcept;
  void finish_compaction();
  void require_writer() const;
  std::shared_ptr<const Segment> write_new_segment(int64_t number, std::span<const DocumentId> ids,
                                                   std::span<const DocumentRows> documents) const;
  void check_inputs(std::span<const DocumentInput> inputs) const;
  bool change_metadata(DocumentId id, std::string_view metadata_json, bool also_removed);
  void discard_segment(int64_t number) const noexcept;  // mutex_ held

  std::filesystem::path path_;
  BankMode mode_;
  std::unique_ptr<WriterLock> lock_;
  std::mutex edit_mutex_;     // one edit at a time; taken before mutex_
  mutable std::mutex mutex_;  // store_, snapshot_, next_id_
  std::unique_ptr<DocumentStore> store_;
  mutable std::shared_ptr<const Snapshot> snapshot_;
  mutable int64_t change_counter_ = -1;
  int64_t next_id_ = 1;
};

}  // namespace msa
