// Files: read-only mappings, and writes that are there completely or not at all.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace msa {

/// A whole file mapped for reading. The file must not be truncated while it is mapped; replacing it (rename) is fine.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws Error when the path is missing, unreadable or no regular file.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }  // page-aligned; null for an empty file
  size_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Writes beside the target and takes its place on commit(): a crash at any instant leaves the old file or the new
/// one. Without commit() nothing remains.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// fsync of the file, rename over the target, fsync of its folder.
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  int descriptor_ = -1;
};

void write_file_atomically(const std::string& path, std::string_view content);

/// The whole file; refuses files above `max_bytes` before reading them.
std::string read_file(const std::string& path, size_t max_bytes = size_t{1} << 30);

bool file_exists(const std::string& path);

/// fsync of a folder: makes created, renamed and removed names in it durable.
void sync_directory(const std::string& path);

}  // namespace msa
