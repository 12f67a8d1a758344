#include "bank/document_store_sqlite.h"

#include "core/log.h"

namespace msa {
const char* const kDocumentsAt =
    "(SELECT id, segment, slot, namespace, external_id, version, metadata, content_hash, n_tokens, n_chunks, "
    "text_bytes, has_text, created FROM documents WHERE created <= :at AND (deleted IS NULL OR deleted > :at) "
    "UNION ALL "
    "SELECT h.id, e.segment, e.slot, h.namespace, h.external_id, h.version, h.metadata, e.content_hash, e.n_tokens, "
    "e.n_chunks, e.text_bytes, e.has_text, h.created FROM history h JOIN documents e ON e.id = h.id "
    "WHERE h.created <= :at AND h.deleted > :at)";

std::string sqlite_message(sqlite3* db) {
  if (sqlite3_extended_errcode(db) == SQLITE_IOERR_DATA) {
    return "a page of the file is damaged: its checksum does not match; or the file is no bank's database";
  }
  return std::string("SQLite: ") + sqlite3_errmsg(db);
}

std::string sqlite_fix(int code) {
  if (code == SQLITE_IOERR_DATA) return "restore the bank from a copy";
  switch (code & 0xff) {
    case SQLITE_FULL: return "free space on the disk";
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN: return "check the permissions of the bank's folder and its files";
    case SQLITE_IOERR: return "check the disk and its free space";
    case SQLITE_BUSY: return "wait for the other process to end";
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return "restore the bank from a copy";
    case SQLITE_TOOBIG: return "split the document";
    default: return "";
  }
}

DocumentRecord read_record(const Statement& row) {
  DocumentRecord r;
  r.id = row.integer(0);
  r.external_id = row.text(1);
  r.name_space = row.text(2);
  r.metadata_json = row.text(3);
  r.version = row.integer(4);
  r.n_tokens = row.integer(5);
  r.n_chunks = row.integer(6);
  r.text_bytes = row.integer(7);
  r.content_hash = row.text(8);
  r.created = row.text(9);
  r.has_text = row.integer(10) != 0;
  return r;
}

std::unique_ptr<DocumentStore::Connection> DocumentStore::Connection::open(const std::string& name,
                                                                           const std::string& where, int flags) {
  auto connection = std::make_unique<Connection>();
  connection->where = where;
  const char* const vfs = name == ":memory:" ? nullptr : page_checksum_vfs();
  if (sqlite3_open_v2(name.c_str(), &connection->db, flags | SQLITE_OPEN_NOMUTEX, vfs) != SQLITE_OK) {
    connection->fail();
  }
  sqlite3_extended_result_codes(connection->db, 1);
  sqlite3_busy_timeout(connection->db, kBusyTimeoutMs);
  sqlite3_db_config(connection->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(connection->db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(connection->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);  // settle() alone empties the log
  connection->run("PRAGMA foreign_keys = ON");
  return connection;
}

DocumentStore::Connection::Transaction::Transaction(Connection& db) : db_(db) {
  if (db.uncertain) {
    throw Error("an earlier write failed, and the disk refused to say whether it holds", db.where,
                "check the disk, then open the bank again");
  }
  db_.run("BEGIN IMMEDIATE");
}

DocumentStore::Connection::Transaction::~Transaction() {
  if (!done_) sqlite3_exec(db_.db, "ROLLBACK", nullptr, nullptr, nullptr);
}

int64_t DocumentStore::Connection::Transaction::number() {
  Statement insert = db_.prepare(
      "INSERT INTO commits SELECT coalesce(max(number), 0) + 1, "
      "max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), coalesce(max(time), '')) FROM commits RETURNING number");
  MSA_CHECK(insert.step());
  const int64_t number = insert.integer(0);
  insert.step();
  return number;
}

void DocumentStore::Connection::Transaction::commit() {
  if (sqlite3_exec(db_.db, "COMMIT", nullptr, nullptr, nullptr) == SQLITE_OK) {
    done_ = true;
    return;
  }
  const std::string what = sqlite_message(db_.db);
  const std::string fix = sqlite_fix(sqlite3_extended_errcode(db_.db));
  sqlite3_exec(db_.db, "ROLLBACK", nullptr, nullptr, nullptr);
  done_ = true;
  db_.uncertain = !db_.bury();
  throw Error(what, db_.where, fix);
}

/// A commit whose fsync failed lies in the log complete, and the next opening would take it for good: write another
/// one over it.
bool DocumentStore::Connection::bury() {
  const std::string another = std::string("BEGIN IMMEDIATE; ") + kTouch + "; COMMIT";
  return sqlite3_exec(db, another.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK ||
         (sqlite3_exec(db, "ROLLBACK", nullptr, nullptr, nullptr), false);
}

}  // namespace msa
