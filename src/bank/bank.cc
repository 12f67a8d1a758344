#include "bank/bank.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <numeric>

#include "bank/document_store.h"
#include "bank/segment_file.h"
#include "bank/segment_format.h"
#include "bank/verify.h"
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
  std::map<int64_t, std::vector<int64_t>> dead;  // number → indices
  for (const DeadSlot& slot : state.dead) dead[slot.segment].push_back(slot.index);

  auto next = std::make_shared<Snapshot>();
  next->shape = before.shape;
  next->commit = state.commit;
  for (const SegmentRow& row : state.segments) {
    const auto found = known.find(row.number);
    std::shared_ptr<const Segment> segment = found == known.end() ? open_segment(row) : before.segments[found->second];
    LiveFlags live = found == known.end() ? LiveFlags::all(*segment) : before.live[found->second];
    if (const auto removed = dead.find(row.number); removed != dead.end()) {
      for (const int64_t index : removed->second) {
        if (index >= 0 && index < segment->n_documents()) continue;
        throw Error(
            "a removed document has slot " + std::to_string(index) + " of " + std::to_string(segment->n_documents()),
            segment->where(), "restore the bank from a copy");
      }
      live = live.without(*segment, removed->second);
    }
    next->segments.push_back(std::move(segment));
    next->live.push_back(std::move(live));
  }
  return next;
}

}  // namespace

std::string content_hash(std::string_view text) { return xxh3_128_hex(text.data(), text.size()); }

/// Held while a bank is open for writing; the kernel drops it when the process ends, however it ends.
class Bank::WriterLock {
 public:
  explicit WriterLock(const fs::path& file) : fd_(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
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
  ~WriterLock() { ::close(fd_); }
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  int fd_;
};

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
  if (mode == BankMode::kWrite) sweep_orphans(path, bank->store_->load(0).segments);
  bank->refresh();
  return bank;
}

const BankShape& Bank::shape() const { return store_->shape(); }

void Bank::refresh() const {
  const int64_t counter = store_->change_counter();
  if (counter == change_counter_) return;
  const SegmentOpener opener = [this](const SegmentRow& row) { return open_segment_file(path_, shape(), row); };
  snapshot_ = next_snapshot(*snapshot_, store_->load(snapshot_->commit), opener);
  change_counter_ = counter;
}

void Bank::require_writer() const {
  if (mode_ != BankMode::kWrite)
    throw Error("the bank is open for reading only", path_.string(), "open it for writing");
}

std::vector<DocumentId> Bank::reserve_ids(int64_t count) {
  require_writer();
  MSA_CHECK(count >= 0);
  const std::lock_guard guard(mutex_);
  std::vector<DocumentId> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), next_id_);
  next_id_ += count;
  return ids;
}

std::shared_ptr<const Segment> Bank::write_new_segment(int64_t number, std::span<const DocumentId> ids,
                                                       std::span<const EncodedDocument> documents) const {
  if (path_.empty()) return segment_in_memory(shape(), number, ids, documents);
  return write_segment_file(path_, shape(), number, ids, documents);
}

AddResult Bank::add(std::span<const DocumentId> ids, std::span<const DocumentInput> inputs,
                    std::span<const EncodedDocument> documents) {
  require_writer();
  MSA_CHECK(ids.size() == inputs.size() && ids.size() == documents.size());
  if (ids.empty()) return {};
  const std::lock_guard edit(edit_mutex_);
  SegmentRow row;
  {
    const std::lock_guard guard(mutex_);
    MSA_CHECK(ids.back() < next_id_);
    for (const DocumentInput& input : inputs) {
      if (input.metadata_json.empty() || store_->is_json_object(input.metadata_json)) continue;
      throw Error("the metadata is no JSON object: " + input.metadata_json.substr(0, 80),
                  "document \"" + input.external_id + "\"", "give metadata as {\"key\": value}");
    }
    AddResult result{store_->duplicates(inputs)};
    if (!result.committed()) return result;
    row.number = store_->next_segment();
  }
  const std::shared_ptr<const Segment> segment = write_new_segment(row.number, ids, documents);
  row.n_documents = segment->n_documents();
  row.n_chunks = segment->n_chunks();
  row.checksum = segment->checksum();

  const std::lock_guard guard(mutex_);
  try {
    auto next = std::make_shared<Snapshot>(*snapshot_);
    next->segments.push_back(segment);
    next->live.push_back(LiveFlags::all(*segment));
    next->commit = store_->add(row, ids, inputs, documents, next_id_);
    snapshot_ = std::move(next);
  } catch (...) {
    discard_segment(row.number);
    throw;
  }
  return {};
}

void Bank::discard_segment(int64_t number) const noexcept {
  if (path_.empty()) return;
  try {
    std::error_code ignored;
    if (store_->next_segment() <= number) fs::remove_all(segment_folder(path_, number), ignored);
  } catch (const Error&) {  // the database cannot tell: the next opening sweeps what is not committed
  }
}

bool Bank::remove(DocumentId id) {
  require_writer();
  const std::lock_guard edit(edit_mutex_);
  const std::lock_guard guard(mutex_);
  const std::optional<DocumentStore::Removal> removal = store_->remove(id);
  if (!removal) return false;
  auto next = std::make_shared<Snapshot>(*snapshot_);
  next->commit = removal->commit;
  for (size_t s = 0; s < next->segments.size(); ++s) {
    if (next->segments[s]->number() != removal->slot.segment) continue;
    next->live[s] = next->live[s].without(*next->segments[s], std::span(&removal->slot.index, 1));
  }
  snapshot_ = std::move(next);
  return true;
}

std::optional<DocumentRecord> Bank::find(DocumentId id) const {
  const std::lock_guard guard(mutex_);
  return store_->find(id, false);
}

std::optional<DocumentRecord> Bank::find(DocumentId id, const Snapshot& snapshot) const {
  if (!snapshot.is_live(id)) return std::nullopt;
  const std::lock_guard guard(mutex_);
  return store_->find(id, true);
}

std::optional<DocumentRecord> Bank::find_by_external_id(std::string_view name_space,
                                                        std::string_view external_id) const {
  const std::lock_guard guard(mutex_);
  return store_->find_by_external_id(name_space, external_id);
}

std::optional<DocumentRecord> Bank::find_by_hash(std::string_view name_space, std::string_view hash) const {
  const std::lock_guard guard(mutex_);
  return store_->find_by_hash(name_space, hash);
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

std::vector<std::string> Bank::verify(const fs::path& path, const Progress& progress) {
  try {
    const std::unique_ptr<DocumentStore> store = DocumentStore::open(path / kDatabase, BankMode::kRead);
    if (store == nullptr) return {path.string() + ": there is no bank in this folder"};
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
