// The edits of the document store: one transaction each.
#include <algorithm>
#include <set>
#include <utility>

#include "bank/document_store_sqlite.h"

namespace msa {
namespace {

using Connection = DocumentStore::Connection;

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

void insert_segment(const Connection& db, const SegmentRow& row, int64_t commit) {
  db.prepare("INSERT INTO segments VALUES(?, ?, ?, ?, ?)")
      .bind(row.number, row.n_documents, row.n_chunks, hex(row.checksum), commit)
      .run();
}

/// Ends the live documents of the inputs' external ids; returns each input's version number.
std::vector<int64_t> end_replaced(const Connection& db, std::span<const DocumentInput> inputs, int64_t commit) {
  Statement end = db.prepare(
      "UPDATE documents SET deleted = ? WHERE namespace = ? AND external_id = ? AND external_id <> '' "
      "AND deleted IS NULL RETURNING version");
  std::vector<int64_t> versions;
  for (const DocumentInput& input : inputs) {
    versions.push_back(1);
    if (input.external_id.empty()) continue;
    end.bind(commit, input.name_space, input.external_id);
    while (end.step()) versions.back() = end.integer(0) + 1;
  }
  return versions;
}

void insert_documents(const Connection& db, const DocumentStore::Addition& a, std::span<const int64_t> versions,
                      int64_t commit) {
  Statement document = db.prepare("INSERT INTO documents VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)");
  Statement text = db.prepare("INSERT INTO texts VALUES(?, ?)");
  size_t segment = 0, begin = 0;  // the first document of the segment
  for (size_t i = 0; i < a.ids.size(); ++i) {
    if (i - begin == static_cast<size_t>(a.segments[segment].n_documents)) {
      ++segment;
      begin = i;
    }
    const DocumentInput& input = a.inputs[i];
    const bool has_text = input.withheld_hash.empty();
    const std::string metadata = input.metadata_json.empty() ? "{}" : input.metadata_json;
    const std::string hash = has_text ? content_hash(input.text) : input.withheld_hash;
    document
        .bind(a.ids[i], a.segments[segment].number, static_cast<int64_t>(i - begin), input.name_space,
              input.external_id, versions[i], metadata, hash, a.documents[i].n_tokens, a.documents[i].n_chunks,
              static_cast<int64_t>(input.text.size()), has_text, commit)
        .run();
    if (has_text) text.bind(a.ids[i], input.text).run();
  }
}

/// Ends live documents; returns those that were.
std::vector<DocumentId> end_documents(const Connection& db, std::span<const DocumentId> ids, int64_t commit) {
  Statement end = db.prepare("UPDATE documents SET deleted = ? WHERE id = ? AND deleted IS NULL RETURNING id");
  std::vector<DocumentId> ended;
  for (const DocumentId id : ids) {
    end.bind(commit, id);
    while (end.step()) ended.push_back(id);
  }
  return ended;
}

}  // namespace

std::vector<size_t> DocumentStore::duplicates(std::span<const DocumentInput> inputs, bool replace) const {
  std::vector<size_t> found;
  std::set<std::pair<std::string_view, std::string_view>> seen;
  Statement taken = db_->prepare(
      "SELECT 1 FROM documents WHERE namespace = ? AND external_id = ? AND external_id <> '' "
      "AND deleted IS NULL");
  for (size_t i = 0; i < inputs.size(); ++i) {
    const DocumentInput& input = inputs[i];
    if (input.external_id.empty()) continue;
    const bool repeated = !seen.emplace(input.name_space, input.external_id).second;
    if (repeated || (!replace && taken.bind(input.name_space, input.external_id).step())) found.push_back(i);
  }
  return found;
}

void DocumentStore::add(const Addition& a) {
  Connection::Transaction transaction(*db_);
  const int64_t commit = transaction.number();
  int64_t documents = 0, last_number = 0;
  for (const SegmentRow& segment : a.segments) {
    insert_segment(*db_, segment, commit);
    documents += segment.n_documents;
    last_number = std::max(last_number, segment.number);
  }
  MSA_CHECK(documents == static_cast<int64_t>(a.ids.size()) && a.documents.size() == a.ids.size());
  const auto versions = a.replace ? end_replaced(*db_, a.inputs, commit) : std::vector<int64_t>(a.ids.size(), 1);
  end_documents(*db_, a.remove, commit);
  insert_documents(*db_, a, versions, commit);
  db_->prepare("UPDATE bank SET next_id = ?, next_segment = ?").bind(a.next_id, last_number + 1).run();
  transaction.commit();
}

std::vector<DocumentId> DocumentStore::remove(std::span<const DocumentId> ids) {
  Connection::Transaction transaction(*db_);
  std::vector<DocumentId> ended = end_documents(*db_, ids, transaction.number());
  if (!ended.empty()) transaction.commit();
  return ended;
}

bool DocumentStore::change_metadata(DocumentId id, std::string_view metadata_json, bool also_removed) {
  Connection::Transaction transaction(*db_);
  Statement possible = db_->prepare(
      "SELECT 1 FROM documents d WHERE id = ?1 AND (deleted IS NULL OR ?2 AND (external_id = '' OR NOT EXISTS("
      "SELECT 1 FROM documents o WHERE o.namespace = d.namespace AND o.external_id = d.external_id "
      "AND o.external_id <> '' AND o.deleted IS NULL)))");
  if (!possible.bind(id, also_removed).step()) return false;
  const int64_t commit = transaction.number();
  db_->prepare(
         "INSERT INTO history SELECT id, version, namespace, external_id, metadata, created, coalesce(deleted, ?1), ?1 "
         "FROM documents WHERE id = ?2")
      .bind(commit, id)
      .run();
  db_->prepare("UPDATE documents SET version = version + 1, metadata = ?, created = ?, deleted = NULL WHERE id = ?")
      .bind(metadata_json, commit, id)
      .run();
  transaction.commit();
  return true;
}

void DocumentStore::rewrite(const Rewriting& r, bool forget) {
  Connection::Transaction transaction(*db_);
  const int64_t commit = transaction.number();
  Statement move = db_->prepare("UPDATE documents SET segment = ?, slot = ? WHERE id = ?");
  for (size_t s = 0; s < r.new_segments.size(); ++s) {
    insert_segment(*db_, r.new_segments[s], commit);
    for (size_t i = 0; i < r.ids[s].size(); ++i) {
      move.bind(r.new_segments[s].number, static_cast<int64_t>(i), r.ids[s][i]).run();
    }
    db_->prepare("UPDATE bank SET next_segment = ?").bind(r.new_segments[s].number + 1).run();
  }
  if (forget) {
    db_->run(
        "UPDATE bank SET scrub = 1, horizon = max(horizon, coalesce((SELECT max(deleted) FROM documents), 0), "
        "coalesce((SELECT max(deleted) FROM history), 0))");
    // Rows of live documents stay, emptied: they tell a reader that a document lives again.
    db_->run("DELETE FROM history WHERE id IN (SELECT id FROM documents WHERE deleted IS NOT NULL)");
    db_->run("UPDATE history SET namespace = '', external_id = '', metadata = '{}'");
    db_->run("DELETE FROM texts WHERE id IN (SELECT id FROM documents WHERE deleted IS NOT NULL)");
    db_->run("DELETE FROM documents WHERE deleted IS NOT NULL");
  }
  Statement drop = db_->prepare("DELETE FROM segments WHERE number = ?");
  for (const int64_t number : r.old_segments) drop.bind(number).run();
  transaction.commit();
}

bool DocumentStore::is_certain() const { return !db_->uncertain; }

bool DocumentStore::needs_scrub() const { return db_->number("SELECT scrub FROM bank") != 0; }

void DocumentStore::scrub(const WriterLock* lock) {
  // Deleted rows are zeroed as they go; VACUUM also drops the copies that moving cells leaves between rows.
  db_->run("VACUUM");
  if (lock != nullptr && !settle(*lock, /*wait_for_readers=*/true)) {
    throw Error("a reader keeps the log with forgotten text open, or the disk refuses it", db_->where,
                "end the readers that are stuck, then: msa compact");
  }
  Connection::Transaction transaction(*db_);
  db_->run("UPDATE bank SET scrub = 0");
  transaction.commit();
  if (lock != nullptr) settle(*lock, /*wait_for_readers=*/false);
}

}  // namespace msa
