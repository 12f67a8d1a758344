// The write-ahead log and its folding into the database. Folding overwrites pages in place, so from its beginning to
// its end the database is whole only together with the log. What the log must hold is therefore noted before, and that
// nothing is needed any more is noted durably before the log is emptied: a log damaged in between is noticed.
#include <fstream>
#include <vector>

#include "bank/document_store_sqlite.h"
#include "bank/writer_lock.h"
#include "core/log.h"
#include "io/checksum.h"

namespace msa {
namespace {

constexpr size_t kStep = size_t{1} << 20;
constexpr int64_t kLogHeaderBytes = 32;
constexpr int64_t kFrameHeaderBytes = 24;

std::string log_name(const std::string& database) { return database + "-wal"; }

/// Of the log's first bytes; the file may become shorter while it is read.
uint64_t log_checksum(const std::string& database, uint64_t bytes) {
  std::ifstream log(log_name(database), std::ios::binary);
  std::vector<uint64_t> checksums;
  std::vector<char> step(kStep);
  for (uint64_t at = 0; at < bytes && log; at += kStep) {
    log.read(step.data(), static_cast<std::streamsize>(std::min<uint64_t>(kStep, bytes - at)));
    checksums.push_back(xxh3_64(step.data(), static_cast<size_t>(log.gcount())));
  }
  return xxh3_64(checksums.data(), checksums.size() * sizeof(uint64_t));
}

int count_frames(void* frames, sqlite3* /*db*/, const char* /*name*/, int in_log) {
  *static_cast<int64_t*>(frames) = in_log;
  return SQLITE_OK;
}

}  // namespace

void DocumentStore::Connection::follow_log() { sqlite3_wal_hook(db, count_frames, &log_frames); }

bool DocumentStore::Connection::checkpoint(int mode, bool wait_for_readers) {
  if (!wait_for_readers) sqlite3_busy_handler(db, nullptr, nullptr);
  int log = 0, moved = 0;
  const int code = sqlite3_wal_checkpoint_v2(db, nullptr, mode, &log, &moved);
  sqlite3_busy_timeout(db, kBusyTimeoutMs);
  if (code != SQLITE_OK && code != SQLITE_BUSY) {  // the log holds everything; the next edit tries again
    spdlog::warn("{}: the log cannot be emptied: {}", where, sqlite3_errmsg(db));
  }
  return code == SQLITE_OK && log == moved;
}

bool DocumentStore::is_log_whole(const std::filesystem::path& file, const CommitNote& note) {
  return note.log_bytes == 0 || log_checksum(file.string(), note.log_bytes) == note.log_checksum;
}

bool DocumentStore::settle(const WriterLock& lock, bool wait_for_readers) {
  const int64_t page = db_->number("PRAGMA page_size");
  CommitNote note{last_commit(), 0, 0};
  if (db_->log_frames > 0) {
    note.log_bytes = static_cast<uint64_t>(kLogHeaderBytes + db_->log_frames * (page + kFrameHeaderBytes));
    note.log_checksum = log_checksum(db_->where, note.log_bytes);
  }
  lock.note(note);
  if (!db_->checkpoint(wait_for_readers ? SQLITE_CHECKPOINT_FULL : SQLITE_CHECKPOINT_PASSIVE, wait_for_readers)) {
    return false;
  }
  if (!lock.note_durably({note.commit, 0, 0})) {
    db_->uncertain = true;  // another commit would overwrite the log that the note may still name
    return false;
  }
  db_->log_frames = 0;
  return db_->checkpoint(SQLITE_CHECKPOINT_TRUNCATE, wait_for_readers);
}

void DocumentStore::recover(const WriterLock& lock) {
  std::error_code none;
  const auto bytes = std::filesystem::file_size(log_name(db_->where), none);
  if (none || bytes == 0) return;
  Connection::Transaction transaction(*db_);  // tells how much of the log counts
  db_->run(kTouch);
  transaction.commit();
  settle(lock, /*wait_for_readers=*/false);
}

}  // namespace msa
