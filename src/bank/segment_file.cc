#include "bank/segment_file.h"

#include <set>
#include <string>

#include "bank/segment_format.h"
#include "core/log.h"
#include "io/file.h"

namespace msa {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const std::string& what, const fs::path& where, const std::error_code& error) {
  throw Error(what + ": " + error.message(), where.string(), "check the disk and the permissions of the bank's folder");
}

fs::path segment_file(const fs::path& bank, int64_t number) { return segment_folder(bank, number) / "segment.msa"; }

}  // namespace

std::shared_ptr<const Segment> Segment::open(const fs::path& file, const BankShape& shape) {
  const auto mapping = std::make_shared<const MappedFile>(file.string());
  return view(mapping, mapping->bytes(), shape, file.string());
}

fs::path segment_folder(const fs::path& bank, int64_t number) { return bank / "segments" / std::to_string(number); }

std::shared_ptr<const Segment> write_segment_file(const fs::path& bank, const BankShape& shape, int64_t number,
                                                  std::span<const DocumentId> ids,
                                                  std::span<const DocumentRows> documents) {
  const fs::path folder = segment_folder(bank, number);
  std::error_code error;
  fs::remove_all(folder, error);
  fs::create_directories(folder, error);
  if (error) fail("the folder cannot be made", folder, error);
  try {
    const fs::path path = segment_file(bank, number);
    AtomicFile file(path.string());
    write_segment(shape, number, ids, documents,
                  [&file](std::span<const std::byte> bytes) { file.write(bytes.data(), bytes.size()); });
    file.commit();
    sync_directory(folder.parent_path().string());
    return Segment::open(path, shape);
  } catch (...) {
    fs::remove_all(folder, error);
    throw;
  }
}

std::shared_ptr<const Segment> open_segment_file(const fs::path& bank, const BankShape& shape, const SegmentRow& row) {
  std::shared_ptr<const Segment> segment = Segment::open(segment_file(bank, row.number), shape);
  check_segment_matches(*segment, row);
  return segment;
}

SegmentRow row_of(const Segment& segment) {
  return {segment.number(), segment.n_documents(), segment.n_chunks(), segment.checksum()};
}

void check_segment_matches(const Segment& segment, const SegmentRow& row) {
  if (segment.number() == row.number && segment.n_documents() == row.n_documents &&
      segment.n_chunks() == row.n_chunks && segment.checksum() == row.checksum) {
    return;
  }
  throw Error("this is not the segment " + std::to_string(row.number) + " that the bank committed", segment.where(),
              "restore the bank from a copy");
}

void sweep_orphans(const fs::path& bank, std::span<const SegmentRow> rows) {
  std::error_code error;
  std::set<std::string> committed;
  for (const SegmentRow& row : rows) committed.insert(std::to_string(row.number));
  for (const fs::directory_entry& entry : fs::directory_iterator(bank / "segments", error)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (committed.contains(name)) continue;
    spdlog::debug("{}: removing a segment that the bank does not name", entry.path().string());
    fs::remove_all(entry.path(), error);
    if (error) fail("cannot be removed", entry.path(), error);
  }
}

}  // namespace msa
