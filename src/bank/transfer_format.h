// Bytes of an exported file before compression, format version 1. Little endian.
#pragma once
#include <cstdint>

namespace msa {

inline constexpr char kExportMagic[8] = {'M', 'S', 'A', 'E', 'X', 'P', 'R', 'T'};
inline constexpr uint32_t kExportVersion = 1;
inline constexpr uint64_t kMaxExportRecord = uint64_t{1} << 36;
inline constexpr int64_t kMaxExportTokens = int64_t{1} << 32;  // of one document

/// Behind it: routing layers int32 [n_layers], fingerprint, xxh3-64 of all bytes so far. Then a record each document:
/// uint64 bytes of its body, body, xxh3-64 of the body. At the end xxh3-64 of all those checksums.
struct ExportHeader {
  char magic[8];
  uint32_t version;
  uint32_t has_text;
  uint32_t dtype;  // 0 = F32, 1 = BF16
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t chunk_tokens;
  uint32_t n_layers;
  uint32_t fingerprint_bytes;
  uint64_t n_documents;
};
static_assert(sizeof(ExportHeader) == 48);

/// A body: this, then namespace, external id, metadata, content hash, text; keys of each layer, content of each layer.
struct ExportRecord {
  int64_t id;
  int64_t n_tokens;
  uint64_t namespace_bytes;
  uint64_t external_id_bytes;
  uint64_t metadata_bytes;
  uint64_t hash_bytes;
  uint64_t text_bytes;  // 0 without text
};

}  // namespace msa
