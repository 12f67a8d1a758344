#include "bank/segment_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "bank/segment_format.h"
#include "core/log.h"

namespace msa {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const std::string& what, const fs::path& where, int error) {
  const char* fix = "check the disk and the permissions of the bank's folder";
  if (error == ENOSPC || error == EDQUOT) fix = "free space on the disk";
  throw Error(what + ": " + std::strerror(error), where.string(), fix);
}

/// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : path_(path), fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (fd_ < 0) fail("cannot be opened", path, errno);
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }

  void write_at(uint64_t offset, std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("cannot be written", path_, errno);
      bytes = bytes.subspan(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
  }

  void sync() const {
    if (::fsync(fd_) != 0) fail("cannot be synced", path_, errno);
  }

 private:
  fs::path path_;
  int fd_;
};

/// The whole file, mapped for reading.
class Mapping {
 public:
  explicit Mapping(const fs::path& path) {
    const Descriptor file(path, O_RDONLY);
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) fail("cannot be read", path, errno);
    if (!S_ISREG(status.st_mode)) throw Error("is no file", path.string());
    size_ = static_cast<size_t>(status.st_size);
    if (size_ == 0) return;
    data_ = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
    if (data_ == MAP_FAILED) fail("cannot be mapped", path, errno);
  }
  ~Mapping() {
    if (size_ != 0) ::munmap(data_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

fs::path segment_file(const fs::path& bank, int64_t number) { return segment_folder(bank, number) / "segment.msa"; }

}  // namespace

std::shared_ptr<const Segment> Segment::open(const fs::path& file, const BankShape& shape) {
  const auto mapping = std::make_shared<const Mapping>(file);
  return view(mapping, mapping->bytes(), shape, file.string());
}

fs::path segment_folder(const fs::path& bank, int64_t number) { return bank / "segments" / std::to_string(number); }

void sync_folder(const fs::path& folder) { Descriptor(folder, O_RDONLY | O_DIRECTORY).sync(); }

std::shared_ptr<const Segment> write_segment_file(const fs::path& bank, const BankShape& shape, int64_t number,
                                                  std::span<const DocumentId> ids,
                                                  std::span<const EncodedDocument> documents) {
  const fs::path folder = segment_folder(bank, number);
  std::error_code error;
  fs::remove_all(folder, error);
  fs::create_directories(folder, error);
  if (error) fail("the folder cannot be made", folder, error.value());
  try {
    const fs::path path = segment_file(bank, number);
    const Descriptor file(path, O_WRONLY | O_CREAT | O_EXCL);
    write_segment(shape, number, ids, documents,
                  [&file](uint64_t offset, std::span<const std::byte> bytes) { file.write_at(offset, bytes); });
    file.sync();
    sync_folder(folder);
    sync_folder(folder.parent_path());
    return Segment::open(path, shape);
  } catch (...) {
    fs::remove_all(folder, error);
    throw;
  }
}

std::shared_ptr<const Segment> open_segment_file(const fs::path& bank, const BankShape& shape, const SegmentRow& row) {
  std::shared_ptr<const Segment> segment = Segment::open(segment_file(bank, row.number), shape);
  check_segment_matches(*segment, row);
  return segment;
}

void check_segment_matches(const Segment& segment, const SegmentRow& row) {
  if (segment.number() == row.number && segment.n_documents() == row.n_documents &&
      segment.n_chunks() == row.n_chunks && segment.checksum() == row.checksum) {
    return;
  }
  throw Error("this is not the segment " + std::to_string(row.number) + " that the bank committed", segment.where(),
              "restore the bank from a copy");
}

void sweep_orphans(const fs::path& bank, std::span<const SegmentRow> rows) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(bank / "segments", error)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const bool committed = std::any_of(rows.begin(), rows.end(),
                                       [&](const SegmentRow& row) { return std::to_string(row.number) == name; });
    if (committed) continue;
    spdlog::info("{}: removing a segment that was never committed", entry.path().string());
    fs::remove_all(entry.path(), error);
    if (error) fail("cannot be removed", entry.path(), error.value());
  }
}

}  // namespace msa
