#include "io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/error.h"

namespace msa {
namespace {

[[noreturn]] void fail(const std::string& action, const std::string& path, int code) {
  std::string fix;
  if (code == ENOENT) fix = "check the path";
  if (code == EACCES || code == EPERM) fix = "check the permissions";
  if (code == ENOSPC || code == EDQUOT) fix = "free some space";
  throw Error(action + ": " + std::strerror(code), path, fix);
}

/// A file descriptor that closes itself.
struct Descriptor {
  int value = -1;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

size_t regular_file_size(int descriptor, const std::string& path) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) fail("cannot be examined", path, errno);
  if (!S_ISREG(status.st_mode)) throw Error("is not a regular file", path, "name a file");
  return static_cast<size_t>(status.st_size);
}

int open_for_reading(const std::string& path) {
  // Not blocking: a FIFO is refused afterwards instead of waited for.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) fail("cannot be opened", path, errno);
  return descriptor;
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Descriptor file{open_for_reading(path)};
  size_ = regular_file_size(file.value, path);
  if (size_ == 0) return;
  void* memory = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (memory == MAP_FAILED) fail("cannot be mapped", path, errno);
  data_ = static_cast<const std::byte*>(memory);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
  static std::atomic<unsigned> counter = 0;
  for (int attempt = 0; attempt < 100; ++attempt) {  // a killed process of the same id may have left its file behind
    temporary_ = path + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ >= 0) return;
    if (errno != EEXIST) break;
  }
  fail("cannot be written", path, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor_, at, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot be written", path_, errno);
    at += written;
    size -= static_cast<size_t>(written);
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail("cannot be written", path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be replaced", path_, errno);
  ::close(std::exchange(descriptor_, -1));
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  sync_directory(folder.empty() ? "." : folder);
}

void write_file_atomically(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

std::string read_file(const std::string& path, size_t max_bytes) {
  const Descriptor file{open_for_reading(path)};
  const size_t size = regular_file_size(file.value, path);
  if (size > max_bytes) {
    throw Error("is " + std::to_string(size) + " bytes long, at most " + std::to_string(max_bytes) + " are expected",
                path, "check that this is the right file");
  }
  std::string text(size, '\0');
  size_t filled = 0;
  while (filled < size) {
    const ssize_t got = ::read(file.value, text.data() + filled, size - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot be read", path, errno);
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  text.resize(filled);
  return text;
}

bool file_exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

void sync_directory(const std::string& path) {
  const Descriptor folder{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (folder.value < 0) fail("cannot be opened", path, errno);
  // Some file systems cannot sync a folder (EINVAL); there is nothing more to be done there.
  if (::fsync(folder.value) != 0 && errno != EINVAL) fail("cannot be synced", path, errno);
}

}  // namespace msa
