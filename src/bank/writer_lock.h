// The one writer of a bank, and its note of the last commit that it acknowledged.
#pragma once
#include <cstdint>
#include <filesystem>

namespace msa {

/// A durable commit, and how much of the log the database needs to be whole.
struct CommitNote {
  int64_t commit = 0;
  uint64_t log_bytes = 0;  // 0: the database is whole by itself
  uint64_t log_checksum = 0;
  friend bool operator==(const CommitNote&, const CommitNote&) = default;
};

/// Held while a bank is open for writing; the kernel drops it when the process ends, however it ends.
class WriterLock {
 public:
  /// Throws Error when another process holds it.
  explicit WriterLock(const std::filesystem::path& file);
  ~WriterLock();
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

  /// Without fsync: after a power loss the note may be older than the database, never newer.
  bool note(const CommitNote& note) const;
  bool note_durably(const CommitNote& note) const;
  /// The last one; commit 0 without a sound note.
  static CommitNote last_note(const std::filesystem::path& file);

 private:
  int fd_;
};

}  // namespace msa
