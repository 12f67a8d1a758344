// Files, pipes and compressed files read as streams.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace msa {

/// A descriptor that closes itself.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  ~FileDescriptor() { reset(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  int get() const { return fd_; }
  int release();
  void reset();

 private:
  int fd_;
};

/// Throws Error naming what is wrong with the path.
FileDescriptor open_for_reading(const std::string& path);

/// read(2) that goes on after signals unless `stop` says true. Returns 0 at the end, -1 when stopped; throws Error.
ptrdiff_t read_some(int fd, char* buffer, size_t bytes, const std::function<bool()>& stop, const std::string& where);

/// The rest of a descriptor, at most `max_bytes` (else Error). False when `stop` said true.
bool read_all(int fd, int64_t max_bytes, const std::function<bool()>& stop, const std::string& where,
              std::string& bytes);

/// Lines of a plain or zstd-compressed file (windows up to 2^27 bytes), in memory of about one line.
class LineReader {
 public:
  LineReader(const std::string& path, bool zstd, int64_t max_line_bytes);
  ~LineReader();
  /// Without the line end, valid until the next call. False at the end. Throws Error on a broken or cut stream, or a
  /// line that is too long.
  bool next(std::string_view& line);
  int64_t line_number() const;  // of the last line, from 1

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msa
