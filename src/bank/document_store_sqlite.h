// Statements, connections and transactions of SQLite for the document store's own files.
#pragma once
#include <sqlite3.h>

#include <memory>
#include <string>
#include <string_view>

#include "bank/document_store.h"

namespace msa {

/// The last failure of a connection, and what the user can do about a SQLite error code.
std::string sqlite_message(sqlite3* db);
std::string sqlite_fix(int code);

/// The name of a SQLite file layer that keeps a checksum in the last kPageChecksumBytes of every page of bank.db and
/// refuses a page whose checksum does not match (docs/bank.md).
const char* page_checksum_vfs();
inline constexpr int kPageChecksumBytes = 8;
inline constexpr int kBusyTimeoutMs = 10000;

/// A change that means nothing but is written: SQLite leaves out an update that changes no byte.
inline constexpr const char* kTouch = "UPDATE bank SET next_id = next_id + 1";

/// One prepared statement. Bound text must outlive the steps.
class Statement {
 public:
  Statement(sqlite3* db, const std::string& where, const std::string& sql) : db_(db), where_(where) {
    check(sqlite3_prepare_v2(db, sql.c_str(), static_cast<int>(sql.size()), &statement_, nullptr));
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  template <class... Values>
  Statement& bind(const Values&... values) {
    sqlite3_reset(statement_);
    int index = 0;
    (bind_at(++index, values), ...);
    return *this;
  }
  void bind_at(int index, int64_t value) { check(sqlite3_bind_int64(statement_, index, value)); }
  void bind_at(int index, std::string_view value) {
    const char* from = value.data() == nullptr ? "" : value.data();
    check(sqlite3_bind_text64(statement_, index, from, value.size(), SQLITE_STATIC, SQLITE_UTF8));
  }
  void bind_named(const char* name, int64_t value) { bind_at(sqlite3_bind_parameter_index(statement_, name), value); }
  bool step() {
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) check(code);
    return code == SQLITE_ROW;
  }
  /// Runs to the end and is ready for the next bind.
  void run() {
    while (step()) {
    }
    sqlite3_reset(statement_);
  }
  bool is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  std::string text(int column) const {
    const void* from = sqlite3_column_blob(statement_, column);
    const int bytes = sqlite3_column_bytes(statement_, column);
    return from == nullptr ? std::string() : std::string(static_cast<const char*>(from), static_cast<size_t>(bytes));
  }

 private:
  void check(int code) const {
    if (code != SQLITE_OK) throw Error(sqlite_message(db_), where_, sqlite_fix(sqlite3_extended_errcode(db_)));
  }

  sqlite3* db_;
  const std::string& where_;
  sqlite3_stmt* statement_ = nullptr;
};

struct DocumentStore::Connection {
  sqlite3* db = nullptr;
  std::string where;       // file name for messages
  bool uncertain = false;  // a commit failed and could not be buried: only another opening can tell whether it holds
  int64_t log_frames = 0;  // pages in the log that count, since the first commit of this connection

  ~Connection() { sqlite3_close_v2(db); }
  static std::unique_ptr<Connection> open(const std::string& name, const std::string& where, int flags);
  Statement prepare(const std::string& sql) const { return Statement(db, where, sql); }
  void run(const std::string& sql) const {
    if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) fail();
  }
  void follow_log();  // keeps log_frames
  /// True when the whole log is in the database. A failure is only warned about.
  bool checkpoint(int mode, bool wait_for_readers);
  [[noreturn]] void fail() const { throw Error(sqlite_message(db), where, sqlite_fix(sqlite3_extended_errcode(db))); }
  int64_t number(const std::string& sql) const {
    Statement row = prepare(sql);
    return row.step() ? row.integer(0) : 0;
  }

  /// A transaction of one edit, rolled back unless committed.
  class Transaction {
   public:
    explicit Transaction(Connection& db);
    ~Transaction();
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    /// A new row of `commits`. Commit times never run backwards, whatever the clock does.
    int64_t number();
    /// Durable when it returns. When it throws, nothing of it will ever be seen, or the connection is `uncertain`.
    void commit();

   private:
    Connection& db_;
    bool done_ = false;
  };

 private:
  bool bury();
};

// The columns of a DocumentRecord but its text. `d` is `documents` or documents_at, `c` the commit that created it.
inline constexpr const char* kRecordColumns =
    "d.id, d.external_id, d.namespace, d.metadata, d.version, d.n_tokens, d.n_chunks, d.text_bytes, d.content_hash, "
    "c.time, d.has_text";
inline constexpr int kRecordColumnCount = 11;
DocumentRecord read_record(const Statement& row);

/// A table expression like `documents`: what was live at the commit bound to :at, former versions included.
extern const char* const kDocumentsAt;

}  // namespace msa
