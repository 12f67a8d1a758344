// A segment: the encoded documents of one commit, immutable, in one image (docs/bank.md gives its layout).
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/tensor.h"

namespace msa {

using DocumentId = int64_t;  // as written in prompts: 1, 2, 3, …; never reused

/// What one model's memory looks like. Everything in a bank has this shape.
struct BankShape {
  std::vector<int> routing_layers;  // model layers, ascending; "layer_index" below indexes this list
  int kv_heads = 0;                 // G
  int head_dim = 0;                 // d
  int chunk_tokens = 64;            // P
  DType dtype = DType::kBF16;       // of keys and content: kBF16 or kF32
  std::string fingerprint;          // hash of weights, tokenizer, template, P and layers

  int n_layers() const { return static_cast<int>(routing_layers.size()); }
  int64_t row_elements() const { return static_cast<int64_t>(kv_heads) * head_dim; }          // G·d
  int64_t row_bytes() const { return row_elements() * traits(dtype).block_bytes; }            // one routing key
  int64_t chunk_bytes() const { return 3 * row_bytes() * static_cast<int64_t>(n_layers()); }  // keys and content
  friend bool operator==(const BankShape&, const BankShape&) = default;
};

/// Throws Error (where = `where`) unless the numbers make sense: layers ascending, sizes within bounds, type allowed.
void check_shape(const BankShape& shape, const std::string& where);

/// What the encoder makes of one document.
struct EncodedDocument {
  int64_t n_tokens = 0;         // >= 1
  int64_t n_chunks = 0;         // ceil(n_tokens / P)
  std::vector<Buffer> keys;     // per routing layer [n_chunks, G·d]
  std::vector<Buffer> content;  // per routing layer [n_chunks, 2 (K|V), G·d]
};

struct DocumentSize {
  int64_t n_tokens = 0;
  int64_t n_chunks = 0;
};

/// What the bank knows of a segment.
struct SegmentRow {
  int64_t number = 0;
  int64_t n_documents = 0;
  int64_t n_chunks = 0;
  uint64_t checksum = 0;  // Segment::checksum
};

/// Where one document's rows lie, for writing a segment: in an EncodedDocument or in another segment.
struct DocumentRows {
  int64_t n_chunks = 0;
  std::vector<const std::byte*> keys;     // per routing layer [n_chunks, G·d]
  std::vector<const std::byte*> content;  // per routing layer [n_chunks, 2 (K|V), G·d]
};

/// Immutable; a memory-mapped file or heap memory. Safe to read from any thread.
class Segment {
 public:
  /// Maps a segment file and checks its header, ids and chunk starts. Throws Error naming the file and what is wrong.
  static std::shared_ptr<const Segment> open(const std::filesystem::path& file, const BankShape& shape);
  /// The same for an image in memory that `owner` keeps alive. `bytes` is 64-byte aligned.
  static std::shared_ptr<const Segment> view(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                                             const BankShape& shape, const std::string& where);
  /// Documents [begin, end), not none, as a segment of their own over the same memory, of which only theirs is read.
  static std::shared_ptr<const Segment> part(const std::shared_ptr<const Segment>& whole, int64_t begin, int64_t end);

  int64_t number() const { return number_; }
  int64_t n_documents() const { return static_cast<int64_t>(ids_.size()); }
  int64_t n_chunks() const { return chunk_starts_.back(); }
  DocumentId id(int64_t index) const { return ids_[static_cast<size_t>(index)]; }
  std::span<const DocumentId> ids() const { return ids_; }                 // [n_documents], ascending
  std::span<const int64_t> chunk_starts() const { return chunk_starts_; }  // [n_documents + 1], ascending from 0
  std::optional<int64_t> find(DocumentId id) const;                        // index of the document

  // The first use of a block checks its checksum: both throw Error where the bytes are damaged.
  Tensor keys(int layer_index) const;  // [n_chunks, G·d]
  Tensor content(int layer_index,
                 int64_t document_index) const;     // [chunks of the document, 2, G·d], one contiguous run
  DocumentRows rows(int64_t document_index) const;  // unchecked; valid as long as the segment

  size_t bytes() const { return bytes_.size(); }
  /// Identifies the header, ids, chunk starts and (through the block checksums) keys and content; of a part, these and
  /// which part.
  uint64_t checksum() const { return checksum_; }
  const std::string& where() const { return where_; }
  /// Reads every byte; a sentence for each damaged block.
  std::vector<std::string> verify() const;
  /// The blocks whose checksum does not match.
  std::vector<size_t> damaged_blocks() const;
  /// Documents (indices) with a byte in one of these blocks.
  std::vector<int64_t> documents_in(std::span<const size_t> blocks) const;

 private:
  Segment() = default;
  Segment(const Segment&) = default;
  const std::byte* keys_at(int layer_index, int64_t chunk) const;
  const std::byte* content_at(int layer_index, int64_t chunk) const;
  void check(const std::byte* from, int64_t bytes) const;
  bool is_sound(size_t block) const;

  std::shared_ptr<const void> owner_;
  std::span<const std::byte> bytes_;
  std::string where_;
  int64_t number_ = 0;
  int n_layers_ = 0;
  int64_t row_elements_ = 0;  // G·d
  DType dtype_ = DType::kBF16;
  uint64_t checksum_ = 0;
  std::span<const DocumentId> ids_;        // [n_documents]
  std::span<const int64_t> chunk_starts_;  // [n_documents + 1]
  std::span<const uint64_t> block_checksums_;
  std::shared_ptr<std::atomic<bool>[]> checked_;  // per block: found sound at its first use
  size_t data_begin_ = 0;                         // first byte of keys
  size_t content_begin_ = 0;                      // first byte of content
  size_t keys_stride_ = 0;                        // bytes from one layer's keys to the next layer's
  size_t content_stride_ = 0;                     // bytes from one layer's content to the next layer's
  int64_t first_chunk_ = 0;                       // of a part, in the whole
  std::vector<int64_t> own_chunk_starts_;         // of a part
};

}  // namespace msa
