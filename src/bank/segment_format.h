// The bytes of a segment image, format version 1; docs/bank.md shows the same. Little endian.
#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "bank/segment.h"

namespace msa {

inline constexpr char kSegmentMagic[8] = {'M', 'S', 'A', 'S', 'E', 'G', 'M', 'T'};
inline constexpr uint32_t kSegmentVersion = 1;
inline constexpr size_t kSegmentBlockBytes = size_t{1} << 20;  // one checksum each
inline constexpr size_t kSegmentPage = 4096;                   // alignment of the data
inline constexpr size_t kSegmentAlignment = 64;                // alignment of one layer's keys or content
inline constexpr uint32_t kMaxLayers = 4096;
inline constexpr uint32_t kMaxDimension = 65536;  // of G, d, P
inline constexpr size_t kMaxFingerprintBytes = 4096;

/// At offset 0. Behind it: routing layers int32 [n_layers], fingerprint, zeros up to `SegmentLayout::ids`.
struct SegmentHeader {
  char magic[8];
  uint32_t version;
  uint32_t dtype;  // 0 = F32, 1 = BF16
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t chunk_tokens;
  uint32_t n_layers;
  uint64_t number;
  uint64_t n_documents;
  uint64_t n_chunks;
  uint64_t file_bytes;
  uint64_t fingerprint_bytes;
};
static_assert(sizeof(SegmentHeader) == 72);

/// Offsets in bytes. They follow from the header alone and are not stored.
struct SegmentLayout {
  size_t layers;           // int32 [n_layers]
  size_t fingerprint;      // char [fingerprint_bytes]
  size_t ids;              // int64 [n_documents]
  size_t chunk_starts;     // int64 [n_documents + 1]
  size_t block_checksums;  // uint64 [n_blocks], xxh3-64 of each block of [keys, file_bytes)
  size_t checksum;         // uint64, xxh3-64 of [0, checksum)
  size_t keys;             // [n_layers] times [n_chunks, G·d], each `keys_stride` long
  size_t content;          // [n_layers] times [n_chunks, 2, G·d], each `content_stride` long
  size_t keys_stride;
  size_t content_stride;
  size_t n_blocks;
  size_t file_bytes;
};

/// The sizes must have been checked: see `chunk_bytes` times n_chunks and the limits above.
SegmentLayout segment_layout(const BankShape& shape, size_t n_documents, size_t n_chunks);

using ByteSink = std::function<void(std::span<const std::byte> bytes)>;

/// Checks that the documents fit the shape. Valid as long as they.
std::vector<DocumentRows> rows_of(const BankShape& shape, std::span<const EncodedDocument> documents);

/// Passes the whole image to `sink` from its first byte to its last, in large pieces.
/// ids [n] ascend; documents [n] fit the shape. Runs over the documents twice, first for the checksums.
void write_segment(const BankShape& shape, int64_t number, std::span<const DocumentId> ids,
                   std::span<const DocumentRows> documents, const ByteSink& sink);
void write_segment(const BankShape& shape, int64_t number, std::span<const DocumentId> ids,
                   std::span<const EncodedDocument> documents, const ByteSink& sink);

/// A segment in heap memory, as write_segment makes it.
std::shared_ptr<const Segment> segment_in_memory(const BankShape& shape, int64_t number,
                                                 std::span<const DocumentId> ids,
                                                 std::span<const DocumentRows> documents);
std::shared_ptr<const Segment> segment_in_memory(const BankShape& shape, int64_t number,
                                                 std::span<const DocumentId> ids,
                                                 std::span<const EncodedDocument> documents);

}  // namespace msa
