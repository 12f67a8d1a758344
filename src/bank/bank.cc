#include "bank/bank.h"

#include <algorithm>
#include <map>

#include "bank/document_store.h"
#include "bank/segment_file.h"
#include "bank/verify.h"
#include "bank/writer_lock.h"
#include "core/log.h"
#include "io/checksum.h"
#include "io/file.h"

namespace msa {
namespace fs = std::filesystem;
namespace {

constexpr const char* kDatabase = "bank.db";
constexpr const char* kLock = "bank.lock";

void require_same_shape(const BankShape& bank, const BankShape& model, const std::string& where) {
  if (bank == model) return;
  const char* fix = "use the model that encoded the bank, or another bank folder";
  if (bank.fingerprint != model.fingerprint) {
    throw Error("the bank belongs to model " + bank.fingerprint + ", this model is " + model.fingerprint, where, fix);
  }
  throw Error("the bank has another shape than the model (heads, dimensions, chunk length, layers or type)", where,
              fix);
}

/// A new bank is made only in a folder that holds nothing but what a creation cut short leaves.
void require_no_foreign_files(const fs::path& folder) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kDatabase) || name == kLock || name == "segments" || name == "lost+found") continue;
    throw Error("the folder holds no bank, but other files (" + name + ")", folder.string(),
                "name an empty or a new folder");
  }
}

/// The database, with its log, holds all that was acknowledged.
void require_no_lost_commit(const fs::path& bank, const DocumentStore& store) {
  const fs::path database = bank / kDatabase;
  const char* fix = "restore the bank from a copy";
  for (CommitNote note = WriterLock::last_note(bank / kLock);;) {  // before the database: a writer may be at work
    const int64_t found = store.last_commit();
    if (note.commit > found) {
      throw Error("the database ends at commit " + std::to_string(found) + ", but commit " +
                      std::to_string(note.commit) + " was acknowledged: its log is damaged or was taken away",
                  database.string(), fix);
    }
    if (DocumentStore::is_log_whole(database, note)) return;
    const CommitNote again = WriterLock::last_note(bank / kLock);
    if (again == note)
      throw Error("the database needs its log, which is damaged or was taken away", database.string(), fix);
    note = again;
  }
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw Error("the folder cannot be made: " + error.message(), folder.string(), "check the path and its permissions");
  }
}

std::shared_ptr<const Snapshot> next_snapshot(const Snapshot& before, const StoreState& state,
                                              const SegmentOpener& open_segment) {
  std::map<int64_t, size_t> known;  // number → place in `before`
  for (size_t s = 0; s < before.segments.size(); ++s) known[before.segments[s]->number()] = s;
  std::map<int64_t, std::vector<LiveFlags::Change>> changes;  // by segment number
  for (const SlotChange& c : state.changes) changes[c.segment].push_back({c.index, c.live});

  auto next = std::make_shared<Snapshot>();
  next->shape = before.shape;
  next->commit = state.commit;
  for (const SegmentRow& row : state.segments) {
    const auto found = known.find(row.number);
    std::shared_ptr<const Segment> segment = found == known.end() ? open_segment(row) : before.segments[found->second];
    LiveFlags live = state.from_nothing     ? LiveFlags::none(*segment)
                     : found == known.end() ? LiveFlags::all(*segment)
                                            : before.live[found->second];
    if (const auto changed = changes.find(row.number); changed != changes.end()) {
      for (const LiveFlags::Change& c : changed->second) {
        if (c.index >= 0 && c.index < segment->n_documents()) continue;
        throw Error("a document has slot " + std::to_string(c.index) + " of " + std::to_string(segment->n_documents()),
                    segment->where(), "restore the bank from a copy");
      }
      live = live.with(*segment, changed->second);
    }
    next->segments.push_back(std::move(segment));
    next->live.push_back(std::move(live));
  }
  return next;
}

/// Calls read(change counter) once more when it fails and the bank was edited meanwhile: a writer that rewrites
/// segments may take one away between its look-up and its opening.
template <class Read>
auto read_beside_a_writer(const DocumentStore& store, const Read& read) {
  constexpr int kTries = 10;
  for (int attempt = 1;; ++attempt) {
    const int64_t counter = store.change_counter();
    try {
      return read(counter);
    } catch (const Error&) {
      if (attempt == kTries || store.change_counter() == counter) throw;
    }
  }
}

}  // namespace

std::string content_hash(std::string_view text) { return xxh3_128_hex(text.data(), text.size()); }

Bank::Bank(fs::path path, BankMode mode, std::unique_ptr<WriterLock> lock, std::unique_ptr<DocumentStore> store)
    : path_(std::move(path)), mode_(mode), lock_(std::move(lock)), store_(std::move(store)) {
  auto empty = std::make_shared<Snapshot>();
  empty->shape = store_->shape();
  snapshot_ = std::move(empty);
  next_id_ = store_->next_id();
}

Bank::~Bank() = default;

std::unique_ptr<Bank> Bank::in_memory(const BankShape& shape) {
  check_shape(shape, "bank in memory");
  return std::unique_ptr<Bank>(new Bank({}, BankMode::kWrite, nullptr, DocumentStore::create({}, shape)));
}

std::unique_ptr<Bank> Bank::create_or_open(const fs::path& path, const BankShape& shape, BankMode mode) {
  check_shape(shape, path.string());
  return open_folder(path, &shape, mode);
}

std::unique_ptr<Bank> Bank::open(const fs::path& path, BankMode mode) { return open_folder(path, nullptr, mode); }

std::unique_ptr<Bank> Bank::open_folder(const fs::path& path, const BankShape* shape, BankMode mode) {
  const bool may_create = mode == BankMode::kWrite && shape != nullptr;
  std::error_code ignored;
  if (may_create) make_folder(path);
  const bool exists = fs::exists(path / kDatabase, ignored);
  if (!exists && !may_create) throw Error("there is no bank in this folder", path.string(), "add documents first");
  if (!exists) require_no_foreign_files(path);
  std::unique_ptr<WriterLock> lock;
  if (mode == BankMode::kWrite) lock = std::make_unique<WriterLock>(path / kLock);
  std::unique_ptr<DocumentStore> store = DocumentStore::open(path / kDatabase, mode);
  if (store == nullptr && !may_create) {
    throw Error("there is no bank in this folder", path.string(), "add documents first");
  }
  if (store == nullptr) {
    make_folder(path / "segments");
    store = DocumentStore::create(path / kDatabase, *shape);
    sync_directory(path.string());
    sync_directory(fs::absolute(path).parent_path().string());
  }
  if (shape != nullptr) require_same_shape(store->shape(), *shape, path.string());
  std::unique_ptr<Bank> bank(new Bank(path, mode, std::move(lock), std::move(store)));
  require_no_lost_commit(path, *bank->store_);
  if (mode == BankMode::kWrite) bank->store_->recover(*bank->lock_);
  if (mode == BankMode::kWrite) sweep_orphans(path, bank->store_->load(0).segments);
  bank->refresh();
  if (mode != BankMode::kWrite) return bank;
  try {
    bank->finish_compaction();
  } catch (const Error& error) {  // a later opening or compaction tries again
    spdlog::warn("forgotten text may still be on the disk: {}", error.what());
  }
  return bank;
}

const BankShape& Bank::shape() const { return store_->shape(); }

std::shared_ptr<const Snapshot> Bank::follow(const StoreState& state,
                                             std::span<const std::shared_ptr<const Segment>> written) const {
  const SegmentOpener opener = [&](const SegmentRow& row) {
    for (const auto& segment : written) {
      if (segment->number() == row.number) return segment;
    }
    return open_segment_file(path_, shape(), row);
  };
  return next_snapshot(*snapshot_, state, opener);
}

void Bank::refresh() const {
  read_beside_a_writer(*store_, [this](int64_t counter) {
    if (counter == change_counter_) return;
    snapshot_ = follow(store_->load(snapshot_->commit));
    change_counter_ = counter;
  });
}

std::shared_ptr<const Snapshot> Bank::snapshot_at(const std::string& time) const {
  const std::lock_guard guard(mutex_);
  return read_beside_a_writer(*store_, [&](int64_t /*counter*/) {
    if (mode_ == BankMode::kRead) refresh();
    const std::shared_ptr<void> view = store_->hold_view();
    return follow(store_->load_at(store_->commit_at(time)));
  });
}

void Bank::require_writer() const {
  if (mode_ != BankMode::kWrite)
    throw Error("the bank is open for reading only", path_.string(), "open it for writing");
}

std::optional<DocumentRecord> Bank::find(DocumentId id) const {
  const std::lock_guard guard(mutex_);
  return store_->find(id);
}

std::optional<DocumentRecord> Bank::find(DocumentId id, const Snapshot& snapshot) const {
  if (!snapshot.is_live(id)) return std::nullopt;
  const std::lock_guard guard(mutex_);
  return store_->find_at(id, snapshot.commit);
}

std::optional<DocumentRecord> Bank::find_by_external_id(std::string_view name_space,
                                                        std::string_view external_id) const {
  const std::lock_guard guard(mutex_);
  return store_->find_by_external_id(name_space, external_id);
}

std::optional<DocumentRecord> Bank::find_unnamed(std::string_view name_space, std::string_view hash) const {
  const std::lock_guard guard(mutex_);
  return store_->find_unnamed(name_space, hash);
}

bool Bank::has_id(DocumentId id) const {
  const std::lock_guard guard(mutex_);
  return store_->has_id(id);
}

std::optional<DocumentRecord> Bank::find_removed(std::string_view name_space, std::string_view external_id,
                                                 std::string_view hash) const {
  const std::lock_guard guard(mutex_);
  return store_->find_removed(name_space, external_id, hash);
}

std::vector<DocumentRecord> Bank::find_parts(std::string_view name_space, std::string_view name) const {
  const std::lock_guard guard(mutex_);
  return store_->find_parts(name_space, name);
}

std::vector<uint8_t> Bank::permitted(const Snapshot& snapshot, const Filter& filter) const {
  std::vector<size_t> starts{0};  // slot of each segment's first document
  for (const auto& segment : snapshot.segments) {
    starts.push_back(starts.back() + static_cast<size_t>(segment->n_documents()));
  }
  std::vector<uint8_t> flags(starts.back(), 0);
  const std::lock_guard guard(mutex_);
  std::vector<DocumentId> ids = store_->matching(filter, snapshot.commit);
  std::sort(ids.begin(), ids.end());
  for (size_t s = 0; s < snapshot.segments.size(); ++s) {
    const std::span<const DocumentId> here = snapshot.segments[s]->ids();  // ascending too
    auto next = std::lower_bound(ids.begin(), ids.end(), here.front());
    for (size_t i = 0; i < here.size() && next != ids.end(); ++i) {
      while (next != ids.end() && *next < here[i]) ++next;
      if (next != ids.end() && *next == here[i]) flags[starts[s] + i] = snapshot.live[s][i];
    }
  }
  return flags;
}

std::string Bank::fingerprint() const {
  const std::lock_guard guard(mutex_);
  return store_->fingerprint();
}

std::vector<DocumentRecord> Bank::list(int64_t offset, int64_t limit) const {
  const std::lock_guard guard(mutex_);
  return store_->list(offset, limit);
}

int64_t Bank::size() const { return snapshot()->n_documents(); }

BankStatistics Bank::statistics() const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  const std::lock_guard guard(mutex_);
  BankStatistics statistics = store_->statistics();
  statistics.segments = static_cast<int64_t>(now->segments.size());
  for (const auto& segment : now->segments) {
    statistics.key_bytes += segment->n_chunks() * shape().row_bytes() * shape().n_layers();
  }
  statistics.content_bytes = 2 * statistics.key_bytes;
  return statistics;
}

std::shared_ptr<const Snapshot> Bank::snapshot() const {
  const std::lock_guard guard(mutex_);
  if (mode_ == BankMode::kRead) refresh();
  return snapshot_;
}

Bank::Repair Bank::repair(const fs::path& path, const BankShape& shape, const Reencode& reencode) {
  const WriterLock lock(path / kLock);
  const std::unique_ptr<DocumentStore> store = DocumentStore::open(path / kDatabase, BankMode::kWrite);
  if (store == nullptr) throw Error("there is no bank in this folder", path.string(), "add documents first");
  require_same_shape(store->shape(), shape, path.string());
  require_no_lost_commit(path, *store);
  store->recover(lock);
  Repair repair = repair_segments(*store, path, reencode);
  store->settle(lock, /*wait_for_readers=*/false);
  return repair;
}

std::vector<std::string> Bank::verify(const fs::path& path, const Progress& progress) {
  try {
    const std::unique_ptr<DocumentStore> store = DocumentStore::open(path / kDatabase, BankMode::kRead);
    if (store == nullptr) return {path.string() + ": there is no bank in this folder"};
    require_no_lost_commit(path, *store);
    const SegmentOpener opener = [&](const SegmentRow& row) { return open_segment_file(path, store->shape(), row); };
    return verify_bank(*store, opener, progress);
  } catch (const Error& error) {
    return {error.what()};
  }
}

std::vector<std::string> Bank::verify(const Progress& progress) const {
  if (!path_.empty()) return verify(path_, progress);
  const std::lock_guard guard(mutex_);
  const SegmentOpener opener = [this](const SegmentRow& row) {
    for (const auto& segment : snapshot_->segments) {
      if (segment->number() == row.number) return segment;
    }
    throw Error("segment " + std::to_string(row.number) + " is missing", "bank in memory");
  };
  return verify_bank(*store_, opener, progress);
}

}  // namespace msa
