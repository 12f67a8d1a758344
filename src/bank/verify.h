// The bank's self-examination: every checksum, every reference between tables and segments.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bank/document_store.h"

namespace msa {

using SegmentOpener = std::function<std::shared_ptr<const Segment>(const SegmentRow&)>;

/// A sentence for each problem; an Error of the opener is one.
std::vector<std::string> verify_bank(const DocumentStore& store, const SegmentOpener& open_segment,
                                     const Bank::Progress& progress);

/// Rewrites the segments that have damaged blocks or cannot be opened.
Bank::Repair repair_segments(DocumentStore& store, const std::filesystem::path& bank, const Bank::Reencode& reencode);

}  // namespace msa
