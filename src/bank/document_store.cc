#include "bank/document_store.h"

#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <set>
#include <sstream>
#include <utility>

namespace msa {
namespace {

constexpr int64_t kApplicationId = 0x4d534142;  // "MSAB"
constexpr int64_t kFormatVersion = 1;
constexpr int64_t kMaxNumber = int64_t{1} << 53;  // of ids and segments; exact in JSON, far from overflow
constexpr int kBusyTimeoutMs = 10000;

constexpr const char* kSchema = R"sql(
CREATE TABLE bank(
  one INTEGER PRIMARY KEY CHECK(one = 1),
  fingerprint TEXT NOT NULL, routing_layers TEXT NOT NULL, kv_heads INTEGER NOT NULL, head_dim INTEGER NOT NULL,
  chunk_tokens INTEGER NOT NULL, dtype TEXT NOT NULL,
  next_id INTEGER NOT NULL, next_segment INTEGER NOT NULL) STRICT;
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
  created INTEGER NOT NULL REFERENCES commits(number), deleted INTEGER REFERENCES commits(number)) STRICT;
CREATE TABLE texts(id INTEGER PRIMARY KEY REFERENCES documents(id), text TEXT NOT NULL) STRICT;
CREATE UNIQUE INDEX documents_slot ON documents(segment, slot);
CREATE UNIQUE INDEX documents_external_id ON documents(namespace, external_id)
  WHERE deleted IS NULL AND external_id <> '';
CREATE INDEX documents_hash ON documents(namespace, content_hash) WHERE deleted IS NULL;
CREATE INDEX documents_deleted ON documents(deleted) WHERE deleted IS NOT NULL;
)sql";

constexpr const char* kRecordColumns =
    "d.id, d.external_id, d.namespace, d.metadata, d.version, d.n_tokens, d.n_chunks, d.text_bytes, d.content_hash, "
    "c.time";
constexpr int kRecordColumnCount = 10;

std::string fix_for(int code) {
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

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

uint64_t from_hex(const std::string& text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

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
    (bind_one(++index, values), ...);
    return *this;
  }
  bool step() {
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) check(code);
    return code == SQLITE_ROW;
  }
  int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  std::string text(int column) const {
    const void* from = sqlite3_column_blob(statement_, column);
    const int bytes = sqlite3_column_bytes(statement_, column);
    return from == nullptr ? std::string() : std::string(static_cast<const char*>(from), static_cast<size_t>(bytes));
  }

 private:
  void bind_one(int index, int64_t value) { check(sqlite3_bind_int64(statement_, index, value)); }
  void bind_one(int index, std::string_view value) {
    const char* from = value.data() == nullptr ? "" : value.data();
    check(sqlite3_bind_text64(statement_, index, from, value.size(), SQLITE_STATIC, SQLITE_UTF8));
  }
  void check(int code) const {
    if (code != SQLITE_OK) throw Error(std::string("SQLite: ") + sqlite3_errmsg(db_), where_, fix_for(code));
  }

  sqlite3* db_;
  const std::string& where_;
  sqlite3_stmt* statement_ = nullptr;
};

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
  return r;
}

}  // namespace

struct DocumentStore::Connection {
  sqlite3* db = nullptr;
  std::string where;  // file name for messages

  ~Connection() { sqlite3_close_v2(db); }
  Statement prepare(const std::string& sql) const { return Statement(db, where, sql); }
  void run(const std::string& sql) const {
    if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) fail();
  }
  [[noreturn]] void fail() const {
    throw Error(std::string("SQLite: ") + sqlite3_errmsg(db), where, fix_for(sqlite3_extended_errcode(db)));
  }
  int64_t number(const std::string& sql) const {
    Statement row = prepare(sql);
    return row.step() ? row.integer(0) : 0;
  }

  static std::unique_ptr<Connection> open(const std::string& name, const std::string& where, int flags) {
    auto connection = std::make_unique<Connection>();
    connection->where = where;
    if (sqlite3_open_v2(name.c_str(), &connection->db, flags | SQLITE_OPEN_NOMUTEX, nullptr) != SQLITE_OK) {
      connection->fail();
    }
    sqlite3_busy_timeout(connection->db, kBusyTimeoutMs);
    sqlite3_db_config(connection->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    sqlite3_db_config(connection->db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    connection->run("PRAGMA foreign_keys = ON");
    return connection;
  }
};

namespace {

/// Rolled back unless committed.
template <class Connection>
class Transaction {
 public:
  explicit Transaction(const Connection& db) : db_(db) { db_.run("BEGIN IMMEDIATE"); }
  ~Transaction() {
    if (!done_) sqlite3_exec(db_.db, "ROLLBACK", nullptr, nullptr, nullptr);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit() {
    db_.run("COMMIT");
    done_ = true;
  }

 private:
  const Connection& db_;
  bool done_ = false;
};

/// Commit times never run backwards, whatever the clock does.
template <class Connection>
int64_t insert_commit(const Connection& db) {
  Statement insert = db.prepare(
      "INSERT INTO commits SELECT coalesce(max(number), 0) + 1, "
      "max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), coalesce(max(time), '')) FROM commits RETURNING number");
  MSA_CHECK(insert.step());
  const int64_t number = insert.integer(0);
  insert.step();
  return number;
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
  return name + (std::filesystem::exists(file.string() + "-wal") ? "" : "?immutable=1");
}

}  // namespace

DocumentStore::DocumentStore(std::unique_ptr<Connection> connection) : db_(std::move(connection)) {}
DocumentStore::~DocumentStore() = default;

std::unique_ptr<DocumentStore> DocumentStore::create(const std::filesystem::path& file, const BankShape& shape) {
  const bool in_memory = file.empty();
  const std::string where = in_memory ? "bank in memory" : file.string();
  std::unique_ptr<DocumentStore> store(new DocumentStore(
      Connection::open(in_memory ? ":memory:" : where, where, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)));
  const Connection& db = *store->db_;
  db.run("PRAGMA journal_mode = WAL");
  db.run("PRAGMA synchronous = FULL");
  Transaction transaction(db);
  db.run("PRAGMA application_id = " + std::to_string(kApplicationId));
  db.run("PRAGMA user_version = " + std::to_string(kFormatVersion));
  db.run(kSchema);
  const std::string layers = join_layers(shape.routing_layers);
  db.prepare("INSERT INTO bank VALUES(1, ?, ?, ?, ?, ?, ?, 1, 1)")
      .bind(shape.fingerprint, layers, shape.kv_heads, shape.head_dim, shape.chunk_tokens, traits(shape.dtype).name)
      .step();
  transaction.commit();
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
  connection->run(mode == BankMode::kWrite ? "PRAGMA synchronous = FULL" : "PRAGMA query_only = ON");
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

StoreState DocumentStore::load(int64_t since_commit) const {
  const std::shared_ptr<void> view = hold_view();
  StoreState state;
  state.commit = db_->number("SELECT coalesce(max(number), 0) FROM commits");
  Statement segments = db_->prepare("SELECT number, n_documents, n_chunks, checksum FROM segments ORDER BY number");
  while (segments.step()) {
    state.segments.push_back(
        {segments.integer(0), segments.integer(1), segments.integer(2), from_hex(segments.text(3))});
  }
  Statement dead = db_->prepare("SELECT segment, slot FROM documents WHERE deleted > ?");
  dead.bind(since_commit);
  while (dead.step()) state.dead.push_back({dead.integer(0), dead.integer(1)});
  return state;
}

std::vector<size_t> DocumentStore::duplicates(std::span<const DocumentInput> inputs) const {
  std::vector<size_t> found;
  std::set<std::pair<std::string_view, std::string_view>> seen;
  Statement taken = db_->prepare(
      "SELECT 1 FROM documents WHERE namespace = ? AND external_id = ? AND external_id <> '' "
      "AND deleted IS NULL");
  for (size_t i = 0; i < inputs.size(); ++i) {
    const DocumentInput& input = inputs[i];
    if (input.external_id.empty()) continue;
    const bool repeated = !seen.emplace(input.name_space, input.external_id).second;
    if (repeated || taken.bind(input.name_space, input.external_id).step()) found.push_back(i);
  }
  return found;
}

bool DocumentStore::is_json_object(std::string_view text) const {
  Statement row = db_->prepare("SELECT CASE WHEN json_valid(?1) THEN json_type(?1) = 'object' ELSE 0 END");
  return row.bind(text).step() && row.integer(0) == 1;
}

int64_t DocumentStore::add(const SegmentRow& segment, std::span<const DocumentId> ids,
                           std::span<const DocumentInput> inputs, std::span<const EncodedDocument> documents,
                           int64_t next_id) {
  Transaction transaction(*db_);
  const int64_t commit = insert_commit(*db_);
  db_->prepare("INSERT INTO segments VALUES(?, ?, ?, ?, ?)")
      .bind(segment.number, segment.n_documents, segment.n_chunks, hex(segment.checksum), commit)
      .step();
  Statement document = db_->prepare("INSERT INTO documents VALUES(?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, NULL)");
  Statement text = db_->prepare("INSERT INTO texts VALUES(?, ?)");
  for (size_t i = 0; i < ids.size(); ++i) {
    const DocumentInput& input = inputs[i];
    const std::string metadata = input.metadata_json.empty() ? "{}" : input.metadata_json;
    const std::string hash = content_hash(input.text);
    document
        .bind(ids[i], segment.number, static_cast<int64_t>(i), input.name_space, input.external_id, metadata, hash,
              documents[i].n_tokens, documents[i].n_chunks, static_cast<int64_t>(input.text.size()), commit)
        .step();
    text.bind(ids[i], input.text).step();
  }
  db_->prepare("UPDATE bank SET next_id = ?, next_segment = ?").bind(next_id, segment.number + 1).step();
  transaction.commit();
  return commit;
}

std::optional<DocumentStore::Removal> DocumentStore::remove(DocumentId id) {
  Transaction transaction(*db_);
  Statement row = db_->prepare("SELECT segment, slot FROM documents WHERE id = ? AND deleted IS NULL");
  if (!row.bind(id).step()) return std::nullopt;
  Removal removal;
  removal.slot = {row.integer(0), row.integer(1)};
  row.bind(id);
  removal.commit = insert_commit(*db_);
  db_->prepare("UPDATE documents SET deleted = ? WHERE id = ?").bind(removal.commit, id).step();
  transaction.commit();
  return removal;
}

namespace {

std::string select_record(const char* condition) {
  return std::string("SELECT ") + kRecordColumns +
         ", t.text FROM documents d JOIN commits c ON c.number = d.created JOIN texts t ON t.id = d.id WHERE " +
         condition;
}

std::optional<DocumentRecord> first_record(Statement& row) {
  if (!row.step()) return std::nullopt;
  DocumentRecord record = read_record(row);
  record.text = row.text(kRecordColumnCount);
  return record;
}

}  // namespace

std::optional<DocumentRecord> DocumentStore::find(DocumentId id, bool removed_too) const {
  Statement row = db_->prepare(select_record(removed_too ? "d.id = ?" : "d.id = ? AND d.deleted IS NULL"));
  return first_record(row.bind(id));
}

std::optional<DocumentRecord> DocumentStore::find_by_external_id(std::string_view name_space,
                                                                 std::string_view external_id) const {
  Statement row = db_->prepare(
      select_record("d.namespace = ? AND d.external_id = ? AND d.external_id <> '' AND d.deleted IS NULL"));
  return first_record(row.bind(name_space, external_id));
}

std::optional<DocumentRecord> DocumentStore::find_by_hash(std::string_view name_space, std::string_view hash) const {
  Statement row =
      db_->prepare(select_record("d.namespace = ? AND d.content_hash = ? AND d.deleted IS NULL ORDER BY d.id LIMIT 1"));
  return first_record(row.bind(name_space, hash));
}

std::vector<DocumentRecord> DocumentStore::list(int64_t offset, int64_t limit) const {
  Statement row = db_->prepare(std::string("SELECT ") + kRecordColumns +
                               " FROM documents d JOIN commits c ON c.number = d.created WHERE d.deleted IS NULL "
                               "ORDER BY d.id LIMIT ? OFFSET ?");
  row.bind(limit, offset);
  std::vector<DocumentRecord> records;
  while (row.step()) records.push_back(read_record(row));
  return records;
}

BankStatistics DocumentStore::statistics() const {
  Statement row = db_->prepare(
      "SELECT coalesce(sum(deleted IS NULL), 0), coalesce(sum(iif(deleted IS NULL, n_chunks, 0)), 0), "
      "coalesce(sum(iif(deleted IS NULL, n_tokens, 0)), 0), coalesce(sum(iif(deleted IS NULL, text_bytes, 0)), 0), "
      "count(*) FROM documents");
  row.step();
  BankStatistics s;
  s.documents = row.integer(0);
  s.chunks = row.integer(1);
  s.tokens = row.integer(2);
  s.text_bytes = row.integer(3);
  s.deleted = row.integer(4) - s.documents;
  return s;
}

void DocumentStore::visit_documents(const std::function<void(const StoredDocument&)>& visit) const {
  Statement row =
      db_->prepare(std::string("SELECT ") + kRecordColumns +
                   ", t.text, d.segment, d.slot FROM documents d LEFT JOIN commits c ON c.number = d.created "
                   "LEFT JOIN texts t ON t.id = d.id ORDER BY d.id");
  StoredDocument document;
  while (row.step()) {
    document.record = read_record(row);
    document.record.text = row.text(kRecordColumnCount);
    document.segment = row.integer(kRecordColumnCount + 1);
    document.index = row.integer(kRecordColumnCount + 2);
    visit(document);
  }
}

std::vector<std::string> DocumentStore::verify() const {
  std::vector<std::string> problems;
  for (const char* pragma : {"PRAGMA integrity_check", "PRAGMA foreign_key_check"}) {
    Statement row = db_->prepare(pragma);
    while (row.step()) {
      const std::string text = row.text(0);
      if (text != "ok") problems.push_back(db_->where + ": " + pragma + ": " + text);
    }
  }
  return problems;
}

}  // namespace msa
