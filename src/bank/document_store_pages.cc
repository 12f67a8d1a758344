// A SQLite file layer over the system's own: every page of a database file carries a checksum of its bytes and its
// place in its last 8 bytes, which SQLite leaves unused ("reserved bytes"). SQLite itself notices damage only where it
// breaks the structure. The write-ahead log has checksums of its own.
#include <cstdint>
#include <cstring>
#include <vector>

#include "bank/document_store_sqlite.h"
#include "io/checksum.h"

namespace msa {
namespace {

constexpr int kMinPage = 512;

uint64_t page_checksum(const void* page, int bytes, sqlite3_int64 offset) {
  const auto place = static_cast<uint64_t>(offset) * 0x9e3779b97f4a7c15u;  // so that pages do not change places
  return xxh3_64(page, static_cast<size_t>(bytes - kPageChecksumBytes)) ^ place;
}

/// SQLite reads and writes whole pages, except for the first bytes of the file, which it reads again with their page.
bool is_page(int bytes, sqlite3_int64 offset) {
  return bytes >= kMinPage && (bytes & (bytes - 1)) == 0 && offset % bytes == 0;
}

/// Followed in memory by the system's own file object.
struct PageFile {
  sqlite3_file base;
  sqlite3_file* inner() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};
sqlite3_file* inner(sqlite3_file* file) { return reinterpret_cast<PageFile*>(file)->inner(); }

int page_read(sqlite3_file* file, void* to, int bytes, sqlite3_int64 offset) {
  const int code = inner(file)->pMethods->xRead(inner(file), to, bytes, offset);
  if (code != SQLITE_OK || !is_page(bytes, offset)) return code;
  uint64_t stored = 0;
  std::memcpy(&stored, static_cast<const char*>(to) + bytes - kPageChecksumBytes, sizeof stored);
  return stored == page_checksum(to, bytes, offset) ? SQLITE_OK : SQLITE_IOERR_DATA;
}

int page_write(sqlite3_file* file, const void* from, int bytes, sqlite3_int64 offset) {
  if (!is_page(bytes, offset)) return inner(file)->pMethods->xWrite(inner(file), from, bytes, offset);
  thread_local std::vector<char> page;
  page.assign(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
  const uint64_t checksum = page_checksum(page.data(), bytes, offset);
  std::memcpy(page.data() + bytes - kPageChecksumBytes, &checksum, sizeof checksum);
  return inner(file)->pMethods->xWrite(inner(file), page.data(), bytes, offset);
}

template <auto kMethod, class... Arguments>
int forward(sqlite3_file* file, Arguments... arguments) {
  return (inner(file)->pMethods->*kMethod)(inner(file), arguments...);
}

int page_close(sqlite3_file* file) {
  const int code = forward<&sqlite3_io_methods::xClose>(file);
  file->pMethods = nullptr;
  return code;
}

void page_barrier(sqlite3_file* file) { inner(file)->pMethods->xShmBarrier(inner(file)); }

using Io = sqlite3_io_methods;
// Version 2: no memory-mapped reading, which would go round the checksums.
constexpr Io kMethods{
    2,
    page_close,
    page_read,
    page_write,
    [](sqlite3_file* f, sqlite3_int64 n) { return forward<&Io::xTruncate>(f, n); },
    [](sqlite3_file* f, int n) { return forward<&Io::xSync>(f, n); },
    [](sqlite3_file* f, sqlite3_int64* n) { return forward<&Io::xFileSize>(f, n); },
    [](sqlite3_file* f, int n) { return forward<&Io::xLock>(f, n); },
    [](sqlite3_file* f, int n) { return forward<&Io::xUnlock>(f, n); },
    [](sqlite3_file* f, int* n) { return forward<&Io::xCheckReservedLock>(f, n); },
    [](sqlite3_file* f, int op, void* p) { return forward<&Io::xFileControl>(f, op, p); },
    [](sqlite3_file* f) { return forward<&Io::xSectorSize>(f); },
    [](sqlite3_file* f) { return forward<&Io::xDeviceCharacteristics>(f); },
    [](sqlite3_file* f, int page, int n, int extend, void volatile** p) {
      return forward<&Io::xShmMap>(f, page, n, extend, p);
    },
    [](sqlite3_file* f, int from, int n, int flags) { return forward<&Io::xShmLock>(f, from, n, flags); },
    page_barrier,
    [](sqlite3_file* f, int remove) { return forward<&Io::xShmUnmap>(f, remove); },
    nullptr,
    nullptr};

int page_open(sqlite3_vfs* vfs, sqlite3_filename name, sqlite3_file* file, int flags, int* out_flags) {
  auto* const system = static_cast<sqlite3_vfs*>(vfs->pAppData);
  if ((flags & SQLITE_OPEN_MAIN_DB) == 0) return system->xOpen(system, name, file, flags, out_flags);
  auto* const page_file = reinterpret_cast<PageFile*>(file);
  page_file->base.pMethods = nullptr;
  const int code = system->xOpen(system, name, page_file->inner(), flags, out_flags);
  if (code == SQLITE_OK) page_file->base.pMethods = &kMethods;
  return code;
}

}  // namespace

const char* page_checksum_vfs() {
  static sqlite3_vfs vfs = [] {
    sqlite3_vfs* const system = sqlite3_vfs_find(nullptr);
    MSA_CHECK(system != nullptr);
    sqlite3_vfs layer = *system;  // its other functions do not look into the object
    layer.zName = "msa-page-checksums";
    layer.szOsFile += static_cast<int>(sizeof(PageFile));
    layer.pNext = nullptr;
    layer.pAppData = system;
    layer.xOpen = page_open;
    return layer;
  }();
  static const int kRegistered = sqlite3_vfs_register(&vfs, /*makeDflt=*/0);
  MSA_CHECK(kRegistered == SQLITE_OK);
  return vfs.zName;
}

}  // namespace msa
