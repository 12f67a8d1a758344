// What the document store answers: records, lists, counts.
#include "bank/document_store_sqlite.h"
#include "io/checksum.h"

namespace msa {
namespace {

std::string select_record(const std::string& table, const std::string& condition) {
  return std::string("SELECT ") + kRecordColumns + ", t.text FROM " + table +
         " d JOIN commits c ON c.number = d.created LEFT JOIN texts t ON t.id = d.id WHERE " + condition;
}

std::optional<DocumentRecord> first_record(Statement& row, const std::string& where) {
  if (!row.step()) return std::nullopt;
  DocumentRecord record = read_record(row);
  record.text = row.text(kRecordColumnCount);
  if (record.has_text && content_hash(record.text) != record.content_hash) {
    throw Error("the text of document " + std::to_string(record.id) + " does not match its hash", where,
                "msa verify tells what is damaged");
  }
  return record;
}

}  // namespace

bool DocumentStore::is_json_object(std::string_view text) const {
  Statement row = db_->prepare("SELECT CASE WHEN json_valid(?1) THEN json_type(?1) = 'object' ELSE 0 END");
  return row.bind(text).step() && row.integer(0) == 1;
}

bool DocumentStore::has_id(DocumentId id) const {
  return db_->prepare("SELECT 1 FROM documents WHERE id = ?").bind(id).step();
}

std::optional<DocumentRecord> DocumentStore::find(DocumentId id) const {
  Statement row = db_->prepare(select_record("documents", "d.id = ? AND d.deleted IS NULL"));
  return first_record(row.bind(id), db_->where);
}

std::optional<DocumentRecord> DocumentStore::find_at(DocumentId id, int64_t commit) const {
  Statement row = db_->prepare(select_record(kDocumentsAt, "d.id = :id"));
  row.bind_named(":at", commit);
  row.bind_named(":id", id);
  return first_record(row, db_->where);
}

std::optional<DocumentRecord> DocumentStore::find_by_external_id(std::string_view name_space,
                                                                 std::string_view external_id) const {
  Statement row = db_->prepare(select_record(
      "documents", "d.namespace = ? AND d.external_id = ? AND d.external_id <> '' AND d.deleted IS NULL"));
  return first_record(row.bind(name_space, external_id), db_->where);
}

std::optional<DocumentRecord> DocumentStore::find_unnamed(std::string_view name_space, std::string_view hash) const {
  Statement row = db_->prepare(select_record(
      "documents",
      "d.namespace = ? AND d.content_hash = ? AND d.deleted IS NULL AND d.external_id = '' ORDER BY d.id LIMIT 1"));
  return first_record(row.bind(name_space, hash), db_->where);
}

std::optional<DocumentRecord> DocumentStore::find_removed(std::string_view name_space, std::string_view external_id,
                                                          std::string_view hash) const {
  Statement row = db_->prepare(select_record("documents",
                                             "d.namespace = ? AND d.external_id = ? AND d.content_hash = ? "
                                             "AND d.deleted IS NOT NULL ORDER BY d.id DESC LIMIT 1"));
  return first_record(row.bind(name_space, external_id, hash), db_->where);
}

std::vector<DocumentRecord> DocumentStore::find_parts(std::string_view name_space, std::string_view name) const {
  Statement row = db_->prepare(
      std::string("SELECT ") + kRecordColumns +
      " FROM documents d JOIN commits c ON c.number = d.created WHERE d.namespace = ?1 AND d.deleted IS NULL AND "
      "d.external_id <> '' AND (d.external_id = ?2 OR (d.external_id > ?2 || '#' AND d.external_id < ?2 || '$' AND "
      "substr(d.external_id, length(?2) + 2) NOT GLOB '*[^0-9]*'))");
  row.bind(name_space, name);
  std::vector<DocumentRecord> records;
  while (row.step()) records.push_back(read_record(row));
  return records;
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

std::string DocumentStore::fingerprint() const {
  Xxh3 hash;
  const auto feed = [&hash](const std::string& text) {  // with its length, so that fields do not run together
    const uint64_t bytes = text.size();
    hash.update(&bytes, sizeof bytes);
    hash.update(text);
  };
  feed(shape_.fingerprint);
  Statement row = db_->prepare(
      "SELECT id, namespace, external_id, metadata, content_hash, n_tokens FROM documents WHERE deleted IS NULL "
      "ORDER BY id");
  while (row.step()) {
    for (int column = 0; column < 6; ++column) feed(row.text(column));
  }
  return hash.hex();
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

std::vector<StoredDocument> DocumentStore::documents_of(int64_t segment) const {
  Statement row = db_->prepare(std::string("SELECT ") + kRecordColumns +
                               ", t.text, d.slot FROM documents d JOIN commits c ON c.number = d.created "
                               "LEFT JOIN texts t ON t.id = d.id WHERE d.segment = ? ORDER BY d.slot");
  row.bind(segment);
  std::vector<StoredDocument> documents;
  while (row.step()) {
    documents.push_back({read_record(row), segment, row.integer(kRecordColumnCount + 1)});
    documents.back().record.text = row.text(kRecordColumnCount);
  }
  return documents;
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
