#include "fault_files.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <fstream>
#include <map>
#include <set>

namespace msa::testing {
namespace {

namespace fs = std::filesystem;
using Kind = FileOperation::Kind;

struct Watch {
  bool active = false;
  std::string folder;
  FaultPlan plan;
  bool record = false;
  int64_t count = 0;
  std::vector<FileOperation> operations;
  std::map<std::string, int64_t> file_of_path;
  struct Open {
    int64_t file;
    std::string path;
    bool is_folder;
  };
  std::map<int, Open> open;  // by descriptor
  int64_t next_file = 0;
};
Watch& watch() {
  static Watch w;
  return w;
}

template <class Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

bool is_below(const std::string& path) {
  const Watch& w = watch();
  return w.active && path.starts_with(w.folder) && (path.size() == w.folder.size() || path[w.folder.size()] == '/');
}

std::string absolute(int folder, const char* path) {
  if (path[0] == '/') return path;
  if (folder == AT_FDCWD) return (fs::current_path() / path).string();
  return (fs::read_symlink("/proc/self/fd/" + std::to_string(folder)) / path).string();
}

const Watch::Open* opened(int fd) {
  const Watch& w = watch();
  if (!w.active) return nullptr;
  const auto found = w.open.find(fd);
  return found == w.open.end() ? nullptr : &found->second;
}

enum class Verdict { kProceed, kFail, kKill };
Verdict judge() {
  Watch& w = watch();
  const int64_t n = w.count++;
  switch (w.plan.kind) {
    case FaultPlan::Kind::kNone: return Verdict::kProceed;
    case FaultPlan::Kind::kFail: return n == w.plan.at ? Verdict::kFail : Verdict::kProceed;
    case FaultPlan::Kind::kFailFromThen: return n >= w.plan.at ? Verdict::kFail : Verdict::kProceed;
    case FaultPlan::Kind::kKill: return n == w.plan.at ? Verdict::kKill : Verdict::kProceed;
  }
  return Verdict::kProceed;
}

[[noreturn]] void die() {
  ::kill(::getpid(), SIGKILL);
  ::_exit(9);
}

int failed() {
  errno = watch().plan.error;
  return -1;
}

void record(FileOperation operation) {
  if (watch().record) watch().operations.push_back(std::move(operation));
}

/// Runs a call without data that is to be recorded when it succeeded.
template <class Call>
int checked(FileOperation operation, Call&& call) {
  const Verdict verdict = judge();
  if (verdict == Verdict::kKill) die();
  if (verdict == Verdict::kFail) return failed();
  const int result = call();
  if (result == 0) record(std::move(operation));
  return result;
}

/// `put(n)` writes the first n bytes.
template <class Put>
ssize_t checked_write(int64_t file, int64_t offset, const void* data, size_t size, Put&& put) {
  const Verdict verdict = judge();
  const auto part = static_cast<size_t>(static_cast<double>(size) * watch().plan.written_part);
  if (verdict != Verdict::kProceed && part > 0) {
    put(part);
    record({Kind::kWrite, file, "", "", offset, std::string(static_cast<const char*>(data), part), 0});
  }
  if (verdict == Verdict::kKill) die();
  if (verdict == Verdict::kFail) return failed();
  const ssize_t written = put(size);
  if (written > 0) {
    record({Kind::kWrite, file, "", "", offset,
            std::string(static_cast<const char*>(data), static_cast<size_t>(written)), 0});
  }
  return written;
}

template <class Open>
int checked_open(int folder, const char* path, int flags, Open&& open) {
  Watch& w = watch();
  if (!w.active) return open();
  const std::string name = absolute(folder, path);
  if (!is_below(name)) return open();
  struct stat status {};
  const bool existed = ::stat(name.c_str(), &status) == 0;
  const bool creates = (flags & O_CREAT) != 0 && !existed;
  if (creates) {
    const Verdict verdict = judge();
    if (verdict == Verdict::kKill) die();
    if (verdict == Verdict::kFail) return failed();
  }
  const int fd = open();
  if (fd < 0) return fd;
  if (creates) {
    w.file_of_path[name] = w.next_file++;
    record({Kind::kCreate, w.file_of_path[name], name, "", 0, "", 0});
  }
  const auto known = w.file_of_path.find(name);
  w.open[fd] = {known == w.file_of_path.end() ? -1 : known->second, name, existed && S_ISDIR(status.st_mode)};
  return fd;
}

int checked_sync(int fd, const char* function) {
  const Watch::Open* const o = opened(fd);
  if (o == nullptr) return real<int(int)>(function)(fd);
  return checked({o->is_folder ? Kind::kSyncFolder : Kind::kSync, o->file, o->path, "", 0, "", 0}, [] { return 0; });
}

template <class Call>
int checked_unlink(int folder, const char* path, Call&& call) {
  if (!watch().active) return call();
  const std::string name = absolute(folder, path);
  if (!is_below(name)) return call();
  return checked({Kind::kUnlink, -1, name, "", 0, "", 0}, call);
}

}  // namespace

void watch_files(const fs::path& folder, const FaultPlan& plan, bool record_too) {
  watch() = {};
  watch().folder = fs::absolute(folder).lexically_normal().string();
  watch().plan = plan;
  watch().record = record_too;
  watch().active = true;
}

int64_t unwatch_files() {
  watch().active = false;
  return watch().count;
}

void mark_operation(int mark) { record({Kind::kMark, -1, "", "", 0, "", mark}); }

const std::vector<FileOperation>& recorded_operations() { return watch().operations; }

namespace {

/// What of the operations reaches the disk.
class Survivors {
 public:
  Survivors(const std::vector<FileOperation>& operations, size_t count, std::mt19937& random)
      : operations_(operations), count_(count), random_(random), mood_(random() % 4), names_kept_(random() % 2 == 0) {}

  std::vector<FileOperation> pick() {
    std::vector<FileOperation> kept;
    for (size_t i = 0; i < count_; ++i) {
      const FileOperation& o = operations_[i];
      const bool data = o.kind == Kind::kWrite || o.kind == Kind::kTruncate;
      const bool name =
          o.kind == Kind::kCreate || o.kind == Kind::kRename || o.kind == Kind::kUnlink || o.kind == Kind::kMakeFolder;
      if (!data && !name) continue;
      if (data ? synced(i, Kind::kSync) : synced(i, Kind::kSyncFolder)) {
        kept.push_back(o);
      } else if (data) {
        keep_unsynced_data(o, kept);
      } else if (names_kept_) {  // a file system keeps the order of its names: those before the first lost one stay
        kept.push_back(o);
        names_kept_ = random_() % 8 != 0;
      }
    }
    return kept;
  }

 private:
  bool synced(size_t i, Kind by) const {
    const FileOperation& o = operations_[i];
    const std::string folder = fs::path(o.kind == Kind::kRename ? o.target : o.path).parent_path().string();
    for (size_t j = i + 1; j < count_; ++j) {
      const FileOperation& s = operations_[j];
      if (s.kind == by && (by == Kind::kSync ? s.file == o.file : s.path == folder)) return true;
    }
    return false;
  }

  void keep_unsynced_data(const FileOperation& o, std::vector<FileOperation>& kept) {
    const bool keep = mood_ == 0 ? false : mood_ == 1 ? true : random_() % 2 == 0;
    if (!keep) return;
    kept.push_back(o);
    if (o.kind != Kind::kWrite || mood_ != 3) return;
    constexpr size_t kSector = 512;  // torn: only its first sectors
    const size_t sectors = (o.bytes.size() + kSector - 1) / kSector;
    kept.back().bytes.resize(std::min(o.bytes.size(), kSector * (random_() % (sectors + 1))));
  }

  const std::vector<FileOperation>& operations_;
  size_t count_;
  std::mt19937& random_;
  unsigned mood_;  // of unsynced data: 0 all lost, 1 all kept, 2 some, 3 some and torn
  bool names_kept_;
};

}  // namespace

void power_loss(const fs::path& folder, const std::vector<FileOperation>& operations, size_t count,
                std::mt19937& random, const fs::path& target) {
  std::map<int64_t, std::string> data;
  std::map<std::string, int64_t> files;
  const std::string root = fs::absolute(folder).lexically_normal().string();
  std::set<std::string> folders{root};
  for (const FileOperation& o : Survivors(operations, count, random).pick()) {
    std::string& bytes = data[o.file];
    const auto end = static_cast<size_t>(o.offset) + o.bytes.size();
    switch (o.kind) {
      case Kind::kWrite:
        bytes.resize(std::max(bytes.size(), end));
        std::copy(o.bytes.begin(), o.bytes.end(), bytes.begin() + o.offset);
        break;
      case Kind::kTruncate: bytes.resize(static_cast<size_t>(o.offset)); break;
      case Kind::kCreate: files[o.path] = o.file; break;
      case Kind::kMakeFolder: folders.insert(o.path); break;
      case Kind::kUnlink:
        files.erase(o.path);
        folders.erase(o.path);
        break;
      case Kind::kRename:
        if (const auto from = files.find(o.path); from != files.end()) {
          files[o.target] = from->second;
          files.erase(o.path);
        }
        break;
      default: break;
    }
  }
  fs::remove_all(target);
  fs::create_directories(target);
  for (const std::string& f : folders) {  // ascending: a parent comes before its children
    if (folders.contains(fs::path(f).parent_path().string())) fs::create_directory(target / fs::relative(f, root));
  }
  for (const auto& [path, file] : files) {
    if (path.ends_with("-shm") || !folders.contains(fs::path(path).parent_path().string())) continue;
    std::ofstream(target / fs::relative(path, root), std::ios::binary) << data[file];
  }
}

}  // namespace msa::testing

// The functions themselves. The dynamic linker finds them before the C library's, also for libsqlite3 and libstdc++.
using namespace msa::testing;

extern "C" {

ssize_t write(int fd, const void* data, size_t size) {
  static auto* const call = real<ssize_t(int, const void*, size_t)>("write");
  const auto* const o = opened(fd);
  if (o == nullptr) return call(fd, data, size);
  const off_t at = ::lseek(fd, 0, SEEK_CUR);
  return checked_write(o->file, at, data, size, [&](size_t n) { return call(fd, data, n); });
}

ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
  static auto* const call = real<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  const auto* const o = opened(fd);
  if (o == nullptr) return call(fd, data, size, offset);
  return checked_write(o->file, offset, data, size, [&](size_t n) { return call(fd, data, n, offset); });
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

int ftruncate64(int fd, off64_t size) noexcept {
  static auto* const call = real<int(int, off64_t)>("ftruncate64");
  const auto* const o = opened(fd);
  if (o == nullptr) return call(fd, size);
  return checked({FileOperation::Kind::kTruncate, o->file, "", "", size, "", 0}, [&] { return call(fd, size); });
}

int ftruncate(int fd, off_t size) noexcept { return ftruncate64(fd, size); }
int fsync(int fd) { return checked_sync(fd, "fsync"); }
int fdatasync(int fd) { return checked_sync(fd, "fdatasync"); }

int rename(const char* from, const char* to) noexcept {
  static auto* const call = real<int(const char*, const char*)>("rename");
  const std::string source = watch().active ? absolute(AT_FDCWD, from) : "";
  if (!is_below(source)) return call(from, to);
  const std::string target = absolute(AT_FDCWD, to);
  const int result =
      checked({FileOperation::Kind::kRename, -1, source, target, 0, "", 0}, [&] { return call(from, to); });
  if (result == 0) watch().file_of_path[target] = watch().file_of_path[source];
  return result;
}

int unlink(const char* path) noexcept {
  static auto* const call = real<int(const char*)>("unlink");
  return checked_unlink(AT_FDCWD, path, [&] { return call(path); });
}

int rmdir(const char* path) noexcept {
  static auto* const call = real<int(const char*)>("rmdir");
  return checked_unlink(AT_FDCWD, path, [&] { return call(path); });
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  static auto* const call = real<int(int, const char*, int)>("unlinkat");
  return checked_unlink(folder, path, [&] { return call(folder, path, flags); });
}

int mkdir(const char* path, mode_t mode) noexcept {
  static auto* const call = real<int(const char*, mode_t)>("mkdir");
  const std::string name = watch().active ? absolute(AT_FDCWD, path) : "";
  if (!is_below(name)) return call(path, mode);
  return checked({FileOperation::Kind::kMakeFolder, -1, name, "", 0, "", 0}, [&] { return call(path, mode); });
}

int open64(const char* path, int flags, ...) {
  static auto* const call = real<int(const char*, int, ...)>("open64");
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return checked_open(AT_FDCWD, path, flags, [&] { return call(path, flags, mode); });
}

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open64(path, flags, mode);
}

int close(int fd) {
  static auto* const call = real<int(int)>("close");
  if (watch().active) watch().open.erase(fd);
  return call(fd);
}

}  // extern "C"
