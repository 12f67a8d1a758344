// The one writer of a bank, and its note of the last commit that it acknowledged.
#pragma once
#include <cstdint>
#include <filesystem>

namespace msa {

/// Held while a bank is open for writing; the kernel drops it when the process ends, however it ends.
class WriterLock {
 public:
  /// Throws Error when another process holds it.
  explicit WriterLock(const std::filesystem::path& file);
  ~WriterLock();
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

  /// Notes a durable commit. Without fsync: after a power loss the note may be older than the database, never newer.
  void note_commit(int64_t number) const;
  /// The commit noted; 0 without a sound note.
  static int64_t noted_commit(const std::filesystem::path& file);

 private:
  int fd_;
};

}  // namespace msa
