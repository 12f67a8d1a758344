#include "bank/writer_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"
#include "core/log.h"
#include "io/checksum.h"

namespace msa {
namespace {

struct Note {
  CommitNote note;
  uint64_t checksum;  // xxh3-64 of `note`
};
static_assert(sizeof(Note) == 32);  // two lie in one sector
constexpr size_t kNotes = 2;        // written in turn, so that a note cut short leaves the one before

}  // namespace

WriterLock::WriterLock(const std::filesystem::path& file)
    : fd_(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  if (fd_ < 0) {
    throw Error(std::string("cannot be opened for writing: ") + std::strerror(errno), file.string(),
                "check the permissions of the bank's folder");
  }
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  const int error = errno;
  ::close(fd_);
  if (error == EWOULDBLOCK) {
    throw Error("another process writes to this bank", file.string(), "wait until it ends, or end it");
  }
  throw Error(std::string("cannot be locked: ") + std::strerror(error), file.string(),
              "keep the bank on a file system with locks");
}

WriterLock::~WriterLock() { ::close(fd_); }

bool WriterLock::note(const CommitNote& note) const {
  const Note written{note, xxh3_64(&note, sizeof note)};
  const auto place = static_cast<off_t>(static_cast<size_t>(note.commit) % kNotes * sizeof written);
  if (::pwrite(fd_, &written, sizeof written, place) == sizeof written) return true;
  spdlog::warn("the bank's lock file cannot take the note of commit {}: {}", note.commit, std::strerror(errno));
  return false;
}

bool WriterLock::note_durably(const CommitNote& wanted) const {
  if (!note(wanted)) return false;
  if (::fdatasync(fd_) == 0) return true;
  spdlog::warn("the bank's lock file cannot be synced: {}", std::strerror(errno));
  return false;
}

CommitNote WriterLock::last_note(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  std::array<Note, kNotes> notes{};
  const ssize_t got = ::pread(fd, notes.data(), sizeof notes, 0);
  ::close(fd);
  CommitNote last;
  for (size_t i = 0; i < kNotes && got >= static_cast<ssize_t>((i + 1) * sizeof(Note)); ++i) {
    const bool sound = notes[i].checksum == xxh3_64(&notes[i].note, sizeof notes[i].note);
    if (sound && notes[i].note.commit >= last.commit) last = notes[i].note;
  }
  return last;
}

}  // namespace msa
