#include "bank/document_store.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <set>
#include <sstream>
#include <utility>

#include "bank/document_store_sqlite.h"
#include "core/log.h"

namespace msa {
namespace {

constexpr int64_t kApplicationId = 0x4d534142;  // "MSAB"
constexpr int64_t kFormatVersion = 2;
constexpr int64_t kMaxNumber = int64_t{1} << 53;  // of ids and segments; exact in JSON, far from overflow

constexpr const char* kSchema = R"sql(
CREATE TABLE bank(
  one INTEGER PRIMARY KEY CHECK(one = 1),
  fingerprint TEXT NOT NULL, routing_layers TEXT NOT NULL, kv_heads INTEGER NOT NULL, head_dim INTEGER NOT NULL,
  chunk_tokens INTEGER NOT NULL, dtype TEXT NOT NULL,
  next_id INTEGER NOT NULL, next_segment INTEGER NOT NULL,
  horizon INTEGER NOT NULL DEFAULT 0, scrub INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE commits(number INTEGER PRIMARY KEY, time TEXT NOT NULL) STRICT;
CREATE TABLE segments(
  number INTEGER PRIMARY KEY, n_documents INTEGER NOT NULL, n_chunks INTEGER NOT NULL, checksum TEXT NOT NULL,
  created INTEGER NOT NULL REFERENCES commits(number)) STRICT;
CREATE TABLE documents(
  id INTEGER PRIMARY KEY,
  segment INTEGER NOT NULL REFERENCES segments(number), slot INTEGER NOT NULL,
  namespace TEXT NOT NULL, external_id TEXT NOT NULL, version INTEGER NOT NULL,
  metadata TEXT NOT NULL, content_hash TEXT NOT NULL,
  n_tokens INTEGER NOT NULL, n_chunks INTEGER NOT NULL, text_bytes INTEGER NOT NULL,
  has_text INTEGER NOT NULL,
  created INTEGER NOT NULL REFERENCES commits(number), deleted INTEGER REFERENCES commits(number)) STRICT;
CREATE TABLE history(
  id INTEGER NOT NULL REFERENCES documents(id), version INTEGER NOT NULL,
  namespace TEXT NOT NULL, external_id TEXT NOT NULL, metadata TEXT NOT NULL,
  created INTEGER NOT NULL REFERENCES commits(number), deleted INTEGER NOT NULL REFERENCES commits(number),
  replaced INTEGER NOT NULL REFERENCES commits(number), PRIMARY KEY(id, version)) STRICT;
CREATE TABLE texts(id INTEGER PRIMARY KEY REFERENCES documents(id), text TEXT NOT NULL) STRICT;
CREATE UNIQUE INDEX documents_slot ON documents(segment, slot);
CREATE UNIQUE INDEX documents_external_id ON documents(namespace, external_id)
  WHERE deleted IS NULL AND external_id <> '';
CREATE INDEX documents_unnamed ON documents(namespace, content_hash) WHERE deleted IS NULL AND external_id = '';
CREATE INDEX documents_removed ON documents(namespace, external_id) WHERE deleted IS NOT NULL;
CREATE INDEX history_replaced ON history(replaced);
CREATE INDEX documents_deleted ON documents(deleted) WHERE deleted IS NOT NULL;
)sql";

std::string join_layers(const std::vector<int>& layers) {
  std::string text;
  for (const int layer : layers) text.append(text.empty() ? "" : ",").append(std::to_string(layer));
  return text;
}

std::vector<int> split_layers(const std::string& text, const std::string& where) {
  std::vector<int> layers;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    int layer = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), layer);
    if (error != std::errc{} || end != part.data() + part.size()) {
      throw Error("the routing layers \"" + text + "\" are no list of numbers", where, "restore the bank from a copy");
    }
    layers.push_back(layer);
  }
  return layers;
}

uint64_t from_hex(const std::string& text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

/// A file URI, so that a bank on a read-only medium can be opened without the files WAL would need.
std::string read_only_name(const std::filesystem::path& file) {
  std::string name = "file:";
  for (const char c : file.string()) {
    if (c == '?' || c == '#' || c == '%') {
      char code[4];
      std::snprintf(code, sizeof code, "%%%02x", static_cast<unsigned char>(c));
      name += code;
    } else {
      name += c;
    }
  }
  std::error_code none;
  const auto log_bytes = std::filesystem::file_size(file.string() + "-wal", none);
  return name + (none || log_bytes == 0 ? "?immutable=1" : "");
}

void make_writable(DocumentStore::Connection& db) {
  db.run("PRAGMA synchronous = FULL");
  db.run("PRAGMA secure_delete = ON");
  db.run("PRAGMA wal_autocheckpoint = 0");  // each edit ends with settle()
  db.run("PRAGMA cache_size = -65536");     // KiB: pages of a large commit spill into the log again and again otherwise
  db.follow_log();
}

void require_page_checksums(const DocumentStore::Connection& db) {
  int reserved = -1;  // asks
  sqlite3_file_control(db.db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
  if (reserved == kPageChecksumBytes) return;
  throw Error("the pages of the database carry no checksums", db.where, "restore the bank from a copy");
}

}  // namespace

DocumentStore::DocumentStore(std::unique_ptr<Connection> connection) : db_(std::move(connection)) {}
DocumentStore::~DocumentStore() = default;

std::unique_ptr<DocumentStore> DocumentStore::create(const std::filesystem::path& file, const BankShape& shape) {
  const bool in_memory = file.empty();
  const std::string where = in_memory ? "bank in memory" : file.string();
  std::unique_ptr<DocumentStore> store(new DocumentStore(
      Connection::open(in_memory ? ":memory:" : where, where, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)));
  Connection& db = *store->db_;
  int reserved = kPageChecksumBytes;
  if (!in_memory) sqlite3_file_control(db.db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
  db.run("PRAGMA journal_mode = WAL");
  make_writable(db);
  {
    Connection::Transaction transaction(db);
    db.run("PRAGMA application_id = " + std::to_string(kApplicationId));
    db.run("PRAGMA user_version = " + std::to_string(kFormatVersion));
    db.run(kSchema);
    const std::string layers = join_layers(shape.routing_layers);
    db.prepare("INSERT INTO bank VALUES(1, ?, ?, ?, ?, ?, ?, 1, 1, 0, 0)")
        .bind(shape.fingerprint, layers, shape.kv_heads, shape.head_dim, shape.chunk_tokens, traits(shape.dtype).name)
        .step();
    transaction.commit();
  }
  store->read_shape();
  return store;
}

std::unique_ptr<DocumentStore> DocumentStore::open(const std::filesystem::path& file, BankMode mode) {
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return nullptr;
  const bool writable = access(file.c_str(), W_OK) == 0 && access(file.parent_path().c_str(), W_OK) == 0;
  auto connection = mode == BankMode::kWrite || writable
                        ? Connection::open(file.string(), file.string(), SQLITE_OPEN_READWRITE)
                        : Connection::open(read_only_name(file), file.string(), SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
  if (connection->number("SELECT count(*) FROM sqlite_schema") == 0) return nullptr;
  if (connection->number("PRAGMA application_id") != kApplicationId) {
    throw Error("this SQLite file is not a bank", file.string(), "name the folder of a bank");
  }
  const int64_t version = connection->number("PRAGMA user_version");
  if (version != kFormatVersion) {
    throw Error("bank format version " + std::to_string(version) + ", this program reads version " +
                    std::to_string(kFormatVersion),
                file.string(), "use the program version that wrote the bank");
  }
  require_page_checksums(*connection);
  if (mode == BankMode::kWrite) make_writable(*connection);
  if (mode == BankMode::kRead) connection->run("PRAGMA query_only = ON");
  std::unique_ptr<DocumentStore> store(new DocumentStore(std::move(connection)));
  store->read_shape();
  return store;
}

void DocumentStore::read_shape() {
  Statement row = db_->prepare(
      "SELECT fingerprint, routing_layers, kv_heads, head_dim, chunk_tokens, dtype, next_id, next_segment FROM bank");
  if (!row.step()) throw Error("the table bank is empty", db_->where, "restore the bank from a copy");
  shape_.fingerprint = row.text(0);
  shape_.routing_layers = split_layers(row.text(1), db_->where);
  const auto bounded = [&](int column) {
    return static_cast<int>(std::clamp<int64_t>(row.integer(column), 0, 1 << 30));
  };
  shape_.kv_heads = bounded(2);
  shape_.head_dim = bounded(3);
  shape_.chunk_tokens = bounded(4);
  const std::string dtype = row.text(5);
  if (dtype != "BF16" && dtype != "F32") {
    throw Error("the bank's type is \"" + dtype + "\", known are BF16 and F32", db_->where,
                "restore the bank from a copy");
  }
  shape_.dtype = dtype == "BF16" ? DType::kBF16 : DType::kF32;
  check_shape(shape_, db_->where);
  const int64_t last_id = db_->number("SELECT coalesce(max(id), 0) FROM documents");
  const int64_t last_segment = db_->number("SELECT coalesce(max(number), 0) FROM segments");
  if (row.integer(6) <= last_id || row.integer(7) <= last_segment ||
      std::max(row.integer(6), row.integer(7)) > kMaxNumber) {
    throw Error("next_id or next_segment is already taken", db_->where, "restore the bank from a copy");
  }
}

int64_t DocumentStore::next_id() const { return db_->number("SELECT next_id FROM bank"); }
int64_t DocumentStore::next_segment() const { return db_->number("SELECT next_segment FROM bank"); }
int64_t DocumentStore::change_counter() const { return db_->number("PRAGMA data_version"); }

std::shared_ptr<void> DocumentStore::hold_view() const {
  db_->run("SAVEPOINT view");
  return {nullptr, [this](void*) { sqlite3_exec(db_->db, "RELEASE view", nullptr, nullptr, nullptr); }};
}

int64_t DocumentStore::last_commit() const { return db_->number("SELECT coalesce(max(number), 0) FROM commits"); }

void DocumentStore::read_segments(StoreState& state) const {
  Statement row = db_->prepare("SELECT number, n_documents, n_chunks, checksum FROM segments ORDER BY number");
  while (row.step()) {
    state.segments.push_back({row.integer(0), row.integer(1), row.integer(2), from_hex(row.text(3))});
  }
}

StoreState DocumentStore::load(int64_t since_commit) const {
  const std::shared_ptr<void> view = hold_view();
  StoreState state;
  state.commit = last_commit();
  read_segments(state);
  Statement dead = db_->prepare("SELECT segment, slot FROM documents WHERE deleted > ?");
  dead.bind(since_commit);
  while (dead.step()) state.changes.push_back({dead.integer(0), dead.integer(1), false});
  if (since_commit > 0) {  // documents that were dead before and lie in other segments since; + : found by segment
    Statement moved = db_->prepare(
        "SELECT segment, slot FROM documents WHERE +deleted <= ?1 AND segment IN "
        "(SELECT number FROM segments WHERE created > ?1)");
    moved.bind(since_commit);
    while (moved.step()) state.changes.push_back({moved.integer(0), moved.integer(1), false});
  }
  Statement revived = db_->prepare(
      "SELECT d.segment, d.slot FROM history h JOIN documents d ON d.id = h.id WHERE h.replaced > ? "
      "AND d.deleted IS NULL");
  revived.bind(since_commit);
  while (revived.step()) state.changes.push_back({revived.integer(0), revived.integer(1), true});
  return state;
}

StoreState DocumentStore::load_at(int64_t commit) const {
  const std::shared_ptr<void> view = hold_view();
  StoreState state;
  state.commit = commit;
  state.from_nothing = true;
  read_segments(state);
  Statement live = db_->prepare(std::string("SELECT segment, slot FROM ") + kDocumentsAt);
  live.bind_named(":at", commit);
  while (live.step()) state.changes.push_back({live.integer(0), live.integer(1), true});
  return state;
}

int64_t DocumentStore::commit_at(const std::string& time) const {
  const std::string moment = normal_time(time);
  Statement row = db_->prepare("SELECT coalesce(max(number), 0) FROM commits WHERE time <= ?");
  row.bind(moment).step();
  const int64_t commit = row.integer(0);
  Statement horizon = db_->prepare("SELECT b.horizon, c.time FROM bank b JOIN commits c ON c.number = b.horizon");
  if (horizon.step() && commit < horizon.integer(0)) {
    throw Error("the bank has forgotten documents of its state at " + moment +
                    ": it was compacted, and knows its states " + "since " + horizon.text(1) + " only",
                "time", "ask for a later time");
  }
  return commit;
}

std::string DocumentStore::normal_time(const std::string& text) const {
  Statement row = db_->prepare(
      "SELECT CASE WHEN ?1 GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' "
      "THEN strftime('%Y-%m-%dT%H:%M:%fZ', ?1) END");
  row.bind(text).step();
  if (row.is_null(0)) {
    throw Error("'" + text.substr(0, 40) + "' is not a time", "time",
                "write 2026-01-31, 2026-01-31T12:00 or 2026-01-31T12:00:00+01:00");
  }
  return row.text(0);
}

}  // namespace msa
