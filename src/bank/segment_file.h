// Segments in a bank's folder: segments/<number>/segment.msa.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "bank/document_store.h"
#include "bank/segment.h"

namespace msa {

std::filesystem::path segment_folder(const std::filesystem::path& bank, int64_t number);

/// Writes and fsyncs the file, its folder and the folder above, then opens it. A left-over folder is replaced.
/// On an Error the folder is gone again as far as the disk allows.
std::shared_ptr<const Segment> write_segment_file(const std::filesystem::path& bank, const BankShape& shape,
                                                  int64_t number, std::span<const DocumentId> ids,
                                                  std::span<const DocumentRows> documents);

/// Opens the segment of this row; Error where it is missing, damaged or another one.
std::shared_ptr<const Segment> open_segment_file(const std::filesystem::path& bank, const BankShape& shape,
                                                 const SegmentRow& row);
SegmentRow row_of(const Segment& segment);
void check_segment_matches(const Segment& segment, const SegmentRow& row);

/// Removes the segment folders that no row names: compacted away, or of a process that was stopped before its commit.
void sweep_orphans(const std::filesystem::path& bank, std::span<const SegmentRow> rows);

}  // namespace msa
