#include "bank/segment.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "bank/segment_format.h"
#include "io/checksum.h"

namespace msa {
namespace {

constexpr const char* kRestore = "restore the bank from a copy, or encode its documents anew";

std::string describe(const BankShape& shape) {
  std::string layers;
  for (const int l : shape.routing_layers) layers.append(layers.empty() ? "" : ",").append(std::to_string(l));
  return "G=" + std::to_string(shape.kv_heads) + " d=" + std::to_string(shape.head_dim) +
         " P=" + std::to_string(shape.chunk_tokens) + " " + traits(shape.dtype).name + " layers " + layers;
}

template <class T>
std::span<const T> array_at(std::span<const std::byte> bytes, size_t offset, size_t count) {
  return {reinterpret_cast<const T*>(bytes.data() + offset), count};
}

/// The shape the image claims, within bounds; the image is long enough for what was read.
BankShape read_shape(std::span<const std::byte> bytes, const SegmentHeader& header, const std::string& where) {
  if (header.n_layers > kMaxLayers || header.fingerprint_bytes > kMaxFingerprintBytes || header.dtype > 1) {
    throw Error("the segment header holds impossible sizes", where, kRestore);
  }
  const size_t layers_bytes = header.n_layers * sizeof(int32_t);
  if (bytes.size() < sizeof header + layers_bytes + header.fingerprint_bytes) {
    throw Error("the segment header is truncated", where, kRestore);
  }
  BankShape shape;
  const auto layers = array_at<int32_t>(bytes, sizeof header, header.n_layers);
  shape.routing_layers.assign(layers.begin(), layers.end());
  shape.kv_heads = static_cast<int>(std::min(header.kv_heads, kMaxDimension + 1));
  shape.head_dim = static_cast<int>(std::min(header.head_dim, kMaxDimension + 1));
  shape.chunk_tokens = static_cast<int>(std::min(header.chunk_tokens, kMaxDimension + 1));
  shape.dtype = header.dtype == 1 ? DType::kBF16 : DType::kF32;
  const auto fingerprint = array_at<char>(bytes, sizeof header + layers_bytes, header.fingerprint_bytes);
  shape.fingerprint.assign(fingerprint.begin(), fingerprint.end());
  check_shape(shape, where);
  return shape;
}

SegmentHeader read_header(std::span<const std::byte> bytes, const std::string& where) {
  SegmentHeader header;
  if (bytes.size() < sizeof header) {
    throw Error("a segment has at least 72 bytes, this has " + std::to_string(bytes.size()), where, kRestore);
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::memcmp(header.magic, kSegmentMagic, sizeof header.magic) != 0) {
    throw Error("not a segment: it does not begin with MSASEGMT", where, kRestore);
  }
  if (header.version != kSegmentVersion) {
    throw Error("segment format version " + std::to_string(header.version) + ", this program reads version " +
                    std::to_string(kSegmentVersion),
                where, "use the program version that wrote the bank");
  }
  if (header.file_bytes != bytes.size()) {
    throw Error("the segment has " + std::to_string(bytes.size()) + " bytes, its header says " +
                    std::to_string(header.file_bytes),
                where, kRestore);
  }
  return header;
}

/// Where everything lies, or an Error where the header's counts do not give the size of the image.
SegmentLayout checked_layout(const SegmentHeader& header, const BankShape& shape, const std::string& where) {
  const uint64_t chunk_bytes = static_cast<uint64_t>(shape.chunk_bytes());
  const bool possible = header.n_documents >= 1 && header.n_documents <= header.file_bytes / (2 * sizeof(int64_t)) &&
                        header.n_chunks >= header.n_documents && header.n_chunks <= header.file_bytes / chunk_bytes &&
                        header.number <= INT64_MAX;
  if (possible) {
    const SegmentLayout layout = segment_layout(shape, header.n_documents, header.n_chunks);
    if (layout.file_bytes == header.file_bytes) return layout;
  }
  throw Error("the counts in the segment header (" + std::to_string(header.n_documents) + " documents, " +
                  std::to_string(header.n_chunks) + " chunks) do not fit its size of " +
                  std::to_string(header.file_bytes) + " bytes",
              where, kRestore);
}

void check_same_shape(const BankShape& found, const BankShape& wanted, const std::string& where) {
  if (found == wanted) return;
  if (found.fingerprint != wanted.fingerprint) {
    throw Error(
        "the segment was encoded by model " + found.fingerprint + ", the bank belongs to model " + wanted.fingerprint,
        where, kRestore);
  }
  throw Error("the segment has shape " + describe(found) + ", the bank " + describe(wanted), where, kRestore);
}

bool ascends(std::span<const int64_t> values) {
  return std::adjacent_find(values.begin(), values.end(), std::greater_equal<>()) == values.end();
}

}  // namespace

void check_shape(const BankShape& shape, const std::string& where) {
  const auto within = [](int n) { return n >= 1 && n <= static_cast<int>(kMaxDimension); };
  const char* problem = nullptr;
  if (shape.routing_layers.empty() || shape.routing_layers.size() > kMaxLayers) problem = "1 to 4096 routing layers";
  if (!within(shape.kv_heads)) problem = "1 to 65536 key/value heads";
  if (!within(shape.head_dim)) problem = "a head dimension of 1 to 65536";
  if (!within(shape.chunk_tokens)) problem = "1 to 65536 tokens in a chunk";
  if (shape.fingerprint.empty() || shape.fingerprint.size() > kMaxFingerprintBytes) problem = "a model fingerprint";
  if (shape.dtype != DType::kBF16 && shape.dtype != DType::kF32) problem = "keys of type BF16 or F32";
  const std::vector<int>& layers = shape.routing_layers;
  const bool ordered = std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<>()) == layers.end();
  if (!ordered || (!layers.empty() && layers.front() < 0)) problem = "ascending routing layers";
  if (problem != nullptr)
    throw Error("a bank's shape needs " + std::string(problem) + "; this is " + describe(shape), where);
}

std::shared_ptr<const Segment> Segment::view(std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
                                             const BankShape& shape, const std::string& where) {
  MSA_CHECK(reinterpret_cast<uintptr_t>(bytes.data()) % kSegmentAlignment == 0);
  const SegmentHeader header = read_header(bytes, where);
  const BankShape found = read_shape(bytes, header, where);
  const SegmentLayout layout = checked_layout(header, found, where);
  uint64_t checksum = 0;
  std::memcpy(&checksum, bytes.data() + layout.checksum, sizeof checksum);
  if (checksum != xxh3_64(bytes.data(), layout.checksum)) {
    throw Error("the checksum of the segment's header does not match", where, kRestore);
  }
  check_same_shape(found, shape, where);

  std::shared_ptr<Segment> segment(new Segment);
  segment->owner_ = std::move(owner);
  segment->bytes_ = bytes;
  segment->where_ = where;
  segment->number_ = static_cast<int64_t>(header.number);
  segment->n_layers_ = shape.n_layers();
  segment->row_elements_ = shape.row_elements();
  segment->dtype_ = shape.dtype;
  segment->checksum_ = checksum;
  segment->ids_ = array_at<DocumentId>(bytes, layout.ids, header.n_documents);
  segment->chunk_starts_ = array_at<int64_t>(bytes, layout.chunk_starts, header.n_documents + 1);
  segment->block_checksums_ = array_at<uint64_t>(bytes, layout.block_checksums, layout.n_blocks);
  segment->checked_ = std::make_unique<std::atomic<bool>[]>(layout.n_blocks);  // false
  segment->data_begin_ = layout.keys;
  segment->content_begin_ = layout.content;
  segment->keys_stride_ = layout.keys_stride;
  segment->content_stride_ = layout.content_stride;
  if (segment->ids_.front() < 1 || !ascends(segment->ids_)) {
    throw Error("the document ids of the segment do not ascend from 1", where, kRestore);
  }
  if (segment->chunk_starts_.front() != 0 || !ascends(segment->chunk_starts_) ||
      segment->chunk_starts_.back() != static_cast<int64_t>(header.n_chunks)) {
    throw Error("the chunk starts of the segment do not ascend from 0 to its number of chunks", where, kRestore);
  }
  return segment;
}

std::shared_ptr<const Segment> Segment::part(const std::shared_ptr<const Segment>& whole, int64_t begin, int64_t end) {
  MSA_CHECK(begin >= 0 && begin < end && end <= whole->n_documents());
  if (begin == 0 && end == whole->n_documents()) return whole;
  std::shared_ptr<Segment> part(new Segment(*whole));
  part->owner_ = whole;
  part->ids_ = whole->ids_.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  const auto starts = whole->chunk_starts_.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin + 1));
  part->own_chunk_starts_.clear();
  for (const int64_t start : starts) part->own_chunk_starts_.push_back(start - starts.front());
  part->chunk_starts_ = part->own_chunk_starts_;
  part->first_chunk_ += starts.front();
  const uint64_t identity[] = {whole->checksum_, static_cast<uint64_t>(begin), static_cast<uint64_t>(end)};
  part->checksum_ = xxh3_64(identity, sizeof identity);
  return part;
}

std::optional<int64_t> Segment::find(DocumentId id) const {
  const auto it = std::lower_bound(ids_.begin(), ids_.end(), id);
  if (it == ids_.end() || *it != id) return std::nullopt;
  return it - ids_.begin();
}

const std::byte* Segment::keys_at(int layer_index, int64_t chunk) const {
  const size_t row_bytes = static_cast<size_t>(row_elements_ * traits(dtype_).block_bytes);
  return bytes_.data() + data_begin_ + static_cast<size_t>(layer_index) * keys_stride_ +
         static_cast<size_t>(first_chunk_ + chunk) * row_bytes;
}

const std::byte* Segment::content_at(int layer_index, int64_t chunk) const {
  const size_t chunk_bytes = static_cast<size_t>(2 * row_elements_ * traits(dtype_).block_bytes);
  return bytes_.data() + content_begin_ + static_cast<size_t>(layer_index) * content_stride_ +
         static_cast<size_t>(first_chunk_ + chunk) * chunk_bytes;
}

Tensor Segment::keys(int layer_index) const {
  MSA_CHECK(layer_index >= 0 && layer_index < n_layers_);
  const Tensor keys = Tensor::of_const(keys_at(layer_index, 0), dtype_, {n_chunks(), row_elements_});
  check(keys_at(layer_index, 0), keys.bytes());
  return keys;
}

Tensor Segment::content(int layer_index, int64_t document_index) const {
  MSA_CHECK(layer_index >= 0 && layer_index < n_layers_ && document_index >= 0 && document_index < n_documents());
  const int64_t first = chunk_starts_[static_cast<size_t>(document_index)];
  const int64_t chunks = chunk_starts_[static_cast<size_t>(document_index) + 1] - first;
  const std::byte* const from = content_at(layer_index, first);
  const Tensor content = Tensor::of_const(from, dtype_, {chunks, 2, row_elements_});
  check(from, content.bytes());
  return content;
}

DocumentRows Segment::rows(int64_t document_index) const {
  DocumentRows rows;
  const int64_t first = chunk_starts_[static_cast<size_t>(document_index)];
  rows.n_chunks = chunk_starts_[static_cast<size_t>(document_index) + 1] - first;
  for (int l = 0; l < n_layers_; ++l) {
    rows.keys.push_back(keys_at(l, first));
    rows.content.push_back(content_at(l, first));
  }
  return rows;
}

bool Segment::is_sound(size_t block) const {
  const std::span<const std::byte> data = bytes_.subspan(data_begin_ + block * kSegmentBlockBytes);
  return xxh3_64(data.data(), std::min(kSegmentBlockBytes, data.size())) == block_checksums_[block];
}

void Segment::check(const std::byte* from, int64_t bytes) const {
  const size_t begin = static_cast<size_t>(from - (bytes_.data() + data_begin_));
  const size_t end = begin + static_cast<size_t>(bytes);
  for (size_t block = begin / kSegmentBlockBytes; block * kSegmentBlockBytes < end; ++block) {
    if (checked_[block].load(std::memory_order_relaxed)) continue;
    if (!is_sound(block)) {
      throw Error("the segment is damaged: the checksum of its data block " + std::to_string(block) + " does not match",
                  where_, "msa verify --repair");
    }
    checked_[block].store(true, std::memory_order_relaxed);
  }
}

std::vector<size_t> Segment::damaged_blocks() const {
  std::vector<size_t> damaged;
  for (size_t i = 0; i < block_checksums_.size(); ++i) {
    if (!is_sound(i)) damaged.push_back(i);
  }
  return damaged;
}

std::vector<int64_t> Segment::documents_in(std::span<const size_t> blocks) const {
  const std::byte* const data = bytes_.data() + data_begin_;
  const auto touches = [&](const std::byte* from, int64_t bytes) {
    const size_t first = static_cast<size_t>(from - data) / kSegmentBlockBytes;
    const size_t last = static_cast<size_t>(from - data + bytes - 1) / kSegmentBlockBytes;
    return std::any_of(blocks.begin(), blocks.end(), [&](size_t b) { return b >= first && b <= last; });
  };
  std::vector<int64_t> found;
  for (int64_t i = 0; i < n_documents(); ++i) {
    const DocumentRows r = rows(i);
    const int64_t bytes = r.n_chunks * row_elements_ * traits(dtype_).block_bytes;
    bool hit = false;
    for (size_t l = 0; l < r.keys.size() && !hit; ++l) {
      hit = touches(r.keys[l], bytes) || touches(r.content[l], 2 * bytes);
    }
    if (hit) found.push_back(i);
  }
  return found;
}

std::vector<std::string> Segment::verify() const {
  std::vector<std::string> problems;
  for (const size_t i : damaged_blocks()) {
    const size_t begin = data_begin_ + i * kSegmentBlockBytes;
    const size_t end = std::min(begin + kSegmentBlockBytes, bytes_.size());
    problems.push_back(where_ + ": the checksum of bytes " + std::to_string(begin) + " to " + std::to_string(end - 1) +
                       " does not match");
  }
  return problems;
}

}  // namespace msa
