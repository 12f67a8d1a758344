#include <algorithm>
#include <cstring>

#include "bank/segment_format.h"
#include "io/checksum.h"

namespace msa {
namespace {

constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/// Collects bytes and passes them on in blocks.
class BlockWriter {
 public:
  explicit BlockWriter(const ByteSink& sink) : sink_(sink) { block_.reserve(kSegmentBlockBytes); }

  void append(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const size_t n = std::min(bytes.size(), kSegmentBlockBytes - block_.size());
      block_.insert(block_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
      bytes = bytes.subspan(n);
      if (block_.size() == kSegmentBlockBytes) flush();
    }
  }
  void pad(size_t bytes) {
    static constexpr std::byte kZeros[kSegmentAlignment] = {};
    MSA_CHECK(bytes < kSegmentAlignment);
    append({kZeros, bytes});
  }
  void flush() {
    if (!block_.empty()) sink_(block_);
    block_.clear();
  }

 private:
  const ByteSink& sink_;
  std::vector<std::byte> block_;
};

/// Keys, then content of all layers, as they lie in the image, block by block.
void write_data(const BankShape& shape, const SegmentLayout& layout, std::span<const DocumentRows> documents,
                const ByteSink& sink) {
  BlockWriter data(sink);
  const auto append_layer = [&](std::vector<const std::byte*> DocumentRows::*part, size_t layer,
                                int64_t rows_per_chunk) {
    size_t written = 0;
    for (const DocumentRows& document : documents) {
      const size_t bytes = static_cast<size_t>(document.n_chunks * rows_per_chunk * shape.row_bytes());
      data.append({(document.*part)[layer], bytes});
      written += bytes;
    }
    return written;
  };
  const size_t layers = shape.routing_layers.size();
  for (size_t l = 0; l < layers; ++l) data.pad(layout.keys_stride - append_layer(&DocumentRows::keys, l, 1));
  for (size_t l = 0; l < layers; ++l) data.pad(layout.content_stride - append_layer(&DocumentRows::content, l, 2));
  data.flush();
}

void check_document(const BankShape& shape, const EncodedDocument& document) {
  const int64_t chunks = (document.n_tokens + shape.chunk_tokens - 1) / shape.chunk_tokens;
  MSA_CHECK(document.n_tokens >= 1 && document.n_chunks == chunks);
  const size_t layers = shape.routing_layers.size();
  MSA_CHECK(document.keys.size() == layers && document.content.size() == layers);
  const size_t bytes = static_cast<size_t>(document.n_chunks * shape.row_bytes());
  for (size_t l = 0; l < layers; ++l) {
    MSA_CHECK(document.keys[l].capacity() >= bytes && document.content[l].capacity() >= 2 * bytes);
  }
}

/// The image before the data, checksum included.
std::vector<std::byte> front_bytes(const BankShape& shape, int64_t number, std::span<const DocumentId> ids,
                                   std::span<const int64_t> chunk_starts, std::span<const uint64_t> block_checksums) {
  const size_t n_chunks = static_cast<size_t>(chunk_starts.back());
  const SegmentLayout layout = segment_layout(shape, ids.size(), n_chunks);
  MSA_CHECK(block_checksums.size() == layout.n_blocks);
  SegmentHeader header{};
  std::memcpy(header.magic, kSegmentMagic, sizeof header.magic);
  header.version = kSegmentVersion;
  header.dtype = shape.dtype == DType::kBF16 ? 1 : 0;
  header.kv_heads = static_cast<uint32_t>(shape.kv_heads);
  header.head_dim = static_cast<uint32_t>(shape.head_dim);
  header.chunk_tokens = static_cast<uint32_t>(shape.chunk_tokens);
  header.n_layers = static_cast<uint32_t>(shape.n_layers());
  header.number = static_cast<uint64_t>(number);
  header.n_documents = ids.size();
  header.n_chunks = n_chunks;
  header.file_bytes = layout.file_bytes;
  header.fingerprint_bytes = shape.fingerprint.size();

  std::vector<std::byte> front(layout.keys);
  const auto put = [&](size_t offset, const void* from, size_t bytes) {
    std::memcpy(front.data() + offset, from, bytes);
  };
  put(0, &header, sizeof header);
  const std::vector<int32_t> layers(shape.routing_layers.begin(), shape.routing_layers.end());
  put(layout.layers, layers.data(), layers.size() * sizeof(int32_t));
  put(layout.fingerprint, shape.fingerprint.data(), shape.fingerprint.size());
  put(layout.ids, ids.data(), ids.size_bytes());
  put(layout.chunk_starts, chunk_starts.data(), chunk_starts.size_bytes());
  put(layout.block_checksums, block_checksums.data(), block_checksums.size_bytes());
  const uint64_t checksum = xxh3_64(front.data(), layout.checksum);
  put(layout.checksum, &checksum, sizeof checksum);
  return front;
}

}  // namespace

SegmentLayout segment_layout(const BankShape& shape, size_t n_documents, size_t n_chunks) {
  SegmentLayout at{};
  const size_t layers = shape.routing_layers.size();
  const size_t row = static_cast<size_t>(shape.row_bytes());
  at.keys_stride = round_up(n_chunks * row, kSegmentAlignment);
  at.content_stride = round_up(2 * n_chunks * row, kSegmentAlignment);
  const size_t data_bytes = layers * (at.keys_stride + at.content_stride);
  at.n_blocks = (data_bytes + kSegmentBlockBytes - 1) / kSegmentBlockBytes;
  at.layers = sizeof(SegmentHeader);
  at.fingerprint = at.layers + layers * sizeof(int32_t);
  at.ids = round_up(at.fingerprint + shape.fingerprint.size(), kSegmentAlignment);
  at.chunk_starts = at.ids + n_documents * sizeof(int64_t);
  at.block_checksums = at.chunk_starts + (n_documents + 1) * sizeof(int64_t);
  at.keys = round_up(at.block_checksums + (at.n_blocks + 1) * sizeof(uint64_t), kSegmentPage);
  at.checksum = at.keys - sizeof(uint64_t);
  at.content = at.keys + layers * at.keys_stride;
  at.file_bytes = at.keys + data_bytes;
  return at;
}

std::vector<DocumentRows> rows_of(const BankShape& shape, std::span<const EncodedDocument> documents) {
  std::vector<DocumentRows> rows;
  rows.reserve(documents.size());
  for (const EncodedDocument& document : documents) {
    check_document(shape, document);
    DocumentRows& r = rows.emplace_back();
    r.n_chunks = document.n_chunks;
    for (const Buffer& keys : document.keys) r.keys.push_back(static_cast<const std::byte*>(keys.data()));
    for (const Buffer& content : document.content) r.content.push_back(static_cast<const std::byte*>(content.data()));
  }
  return rows;
}

void write_segment(const BankShape& shape, int64_t number, std::span<const DocumentId> ids,
                   std::span<const EncodedDocument> documents, const ByteSink& sink) {
  write_segment(shape, number, ids, rows_of(shape, documents), sink);
}

void write_segment(const BankShape& shape, int64_t number, std::span<const DocumentId> ids,
                   std::span<const DocumentRows> documents, const ByteSink& sink) {
  MSA_CHECK(!ids.empty() && ids.size() == documents.size());
  std::vector<int64_t> chunk_starts{0};
  for (size_t i = 0; i < documents.size(); ++i) {
    MSA_CHECK(ids[i] >= 1 && (i == 0 || ids[i - 1] < ids[i]));
    chunk_starts.push_back(chunk_starts.back() + documents[i].n_chunks);
  }
  const SegmentLayout layout = segment_layout(shape, ids.size(), static_cast<size_t>(chunk_starts.back()));
  std::vector<uint64_t> checksums;
  checksums.reserve(layout.n_blocks);
  write_data(shape, layout, documents,
             [&](std::span<const std::byte> block) { checksums.push_back(xxh3_64(block.data(), block.size())); });
  sink(front_bytes(shape, number, ids, chunk_starts, checksums));
  write_data(shape, layout, documents, sink);
}

std::shared_ptr<const Segment> segment_in_memory(const BankShape& shape, int64_t number,
                                                 std::span<const DocumentId> ids,
                                                 std::span<const EncodedDocument> documents) {
  return segment_in_memory(shape, number, ids, rows_of(shape, documents));
}

std::shared_ptr<const Segment> segment_in_memory(const BankShape& shape, int64_t number,
                                                 std::span<const DocumentId> ids,
                                                 std::span<const DocumentRows> documents) {
  int64_t n_chunks = 0;
  for (const DocumentRows& document : documents) n_chunks += document.n_chunks;
  const size_t bytes = segment_layout(shape, ids.size(), static_cast<size_t>(n_chunks)).file_bytes;
  auto image = std::make_shared<Buffer>(bytes);
  std::byte* const base = static_cast<std::byte*>(image->data());
  size_t filled = 0;
  write_segment(shape, number, ids, documents, [&](std::span<const std::byte> piece) {
    std::memcpy(base + filled, piece.data(), piece.size());
    filled += piece.size();
  });
  MSA_CHECK(filled == bytes);
  return Segment::view(image, {base, bytes}, shape, "segment " + std::to_string(number) + " in memory");
}

}  // namespace msa
