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

enum class BankMode { kRead, kWrite };  // many readers, one writer

struct DocumentInput {
  std::string text;
  std::string external_id;  // unique among the live documents of a namespace; empty = none
  std::string name_space;
  std::string metadata_json;  // a JSON object; empty = {}
};

struct DocumentRecord {
  DocumentId id = 0;
  std::string external_id;
  std::string name_space;
  std::string metadata_json;
  std::string text;  // empty in lists
  int64_t version = 1;
  int64_t n_tokens = 0;
  int64_t n_chunks = 0;
  int64_t text_bytes = 0;
  std::string content_hash;  // content_hash(text)
  std::string created;       // UTC, "2026-01-31T12:34:56.789Z"
};

struct AddResult {
  std::vector<size_t> duplicates;  // inputs whose external id a live document, or an earlier input, already has
  bool committed() const { return duplicates.empty(); }
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
  ~Bank();
  Bank(const Bank&) = delete;
  Bank& operator=(const Bank&) = delete;

  const BankShape& shape() const;
  const std::filesystem::path& path() const { return path_; }  // empty in memory
  BankMode mode() const { return mode_; }

  /// `count` new ids, ascending. An id is part of what is encoded, so it is asked for before; unused ones are gaps.
  std::vector<DocumentId> reserve_ids(int64_t count);

  /// One atomic commit, one new segment: all documents or, with duplicates or an Error, none. The three spans run in
  /// parallel; ids are ascending and reserved. Throws Error on metadata that is no JSON object or a disk that is full.
  [[nodiscard]] AddResult add(std::span<const DocumentId> ids, std::span<const DocumentInput> inputs,
                              std::span<const EncodedDocument> documents);
  /// False if the document is not live. Later snapshots do not contain it.
  bool remove(DocumentId id);

  /// Live documents only, with text.
  std::optional<DocumentRecord> find(DocumentId id) const;
  std::optional<DocumentRecord> find_by_external_id(std::string_view name_space, std::string_view external_id) const;
  std::optional<DocumentRecord> find_by_hash(std::string_view name_space, std::string_view hash) const;
  /// A document of the snapshot, also when it was removed since.
  std::optional<DocumentRecord> find(DocumentId id, const Snapshot& snapshot) const;
  /// Live documents without text, ascending by id. A limit below 0 means all.
  std::vector<DocumentRecord> list(int64_t offset = 0, int64_t limit = -1) const;
  int64_t size() const;  // live documents
  BankStatistics statistics() const;

  /// The last committed state; a reader sees what the writer committed meanwhile.
  std::shared_ptr<const Snapshot> snapshot() const;

  /// As the static verify, of this bank.
  std::vector<std::string> verify(const Progress& progress = {}) const;

 private:
  class WriterLock;
  Bank(std::filesystem::path path, BankMode mode, std::unique_ptr<WriterLock> lock,
       std::unique_ptr<DocumentStore> store);
  static std::unique_ptr<Bank> open_folder(const std::filesystem::path& path, const BankShape* shape, BankMode mode);
  void refresh() const;  // mutex_ held
  void require_writer() const;
  std::shared_ptr<const Segment> write_new_segment(int64_t number, std::span<const DocumentId> ids,
                                                   std::span<const EncodedDocument> documents) const;
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
