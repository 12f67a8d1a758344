#include <zstd.h>

#include <algorithm>

#include "bank/transfer.h"
#include "bank/transfer_format.h"
#include "io/checksum.h"
#include "io/file.h"

namespace msa {
namespace {

constexpr int kCompressionLevel = 3;

/// A compressed stream into a file that appears when it is complete.
class CompressedFile {
 public:
  explicit CompressedFile(const std::filesystem::path& path) : file_(path.string()), stream_(ZSTD_createCCtx()) {
    MSA_CHECK(stream_ != nullptr);
    ZSTD_CCtx_setParameter(stream_.get(), ZSTD_c_compressionLevel, kCompressionLevel);
    ZSTD_CCtx_setParameter(stream_.get(), ZSTD_c_checksumFlag, 1);
    out_.resize(ZSTD_CStreamOutSize());
  }
  void write(const void* data, size_t bytes) { run(data, bytes, ZSTD_e_continue); }
  int64_t commit() {
    run(nullptr, 0, ZSTD_e_end);
    file_.commit();
    return written_;
  }

 private:
  struct Free {
    void operator()(ZSTD_CCtx* stream) const { ZSTD_freeCCtx(stream); }
  };
  void run(const void* data, size_t bytes, ZSTD_EndDirective mode) {
    ZSTD_inBuffer in{data, bytes, 0};
    for (bool done = false; !done;) {
      ZSTD_outBuffer out{out_.data(), out_.size(), 0};
      const size_t left = ZSTD_compressStream2(stream_.get(), &out, &in, mode);
      MSA_CHECK(ZSTD_isError(left) == 0);
      file_.write(out_.data(), out.pos);
      written_ += static_cast<int64_t>(out.pos);
      done = mode == ZSTD_e_end ? left == 0 : in.pos == in.size;
    }
  }

  AtomicFile file_;
  std::unique_ptr<ZSTD_CCtx, Free> stream_;
  std::vector<char> out_;
  int64_t written_ = 0;
};

class Body {
 public:
  void append(const void* data, size_t bytes) { bytes_.append(static_cast<const char*>(data), bytes); }
  void append(const std::string& text) { bytes_ += text; }
  /// Writes length, body and checksum; returns the checksum.
  uint64_t flush(CompressedFile& file) {
    const uint64_t size = bytes_.size();
    const uint64_t checksum = xxh3_64(bytes_.data(), bytes_.size());
    file.write(&size, sizeof size);
    file.write(bytes_.data(), bytes_.size());
    file.write(&checksum, sizeof checksum);
    bytes_.clear();
    return checksum;
  }

 private:
  std::string bytes_;
};

std::string header_bytes(const BankShape& shape, bool with_text, int64_t n_documents) {
  ExportHeader header{};
  std::copy(std::begin(kExportMagic), std::end(kExportMagic), header.magic);
  header.version = kExportVersion;
  header.has_text = with_text ? 1 : 0;
  header.dtype = shape.dtype == DType::kBF16 ? 1 : 0;
  header.kv_heads = static_cast<uint32_t>(shape.kv_heads);
  header.head_dim = static_cast<uint32_t>(shape.head_dim);
  header.chunk_tokens = static_cast<uint32_t>(shape.chunk_tokens);
  header.n_layers = static_cast<uint32_t>(shape.n_layers());
  header.fingerprint_bytes = static_cast<uint32_t>(shape.fingerprint.size());
  header.n_documents = static_cast<uint64_t>(n_documents);
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
  for (const int layer : shape.routing_layers) {
    const int32_t number = layer;
    bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
  }
  bytes += shape.fingerprint;
  const uint64_t checksum = xxh3_64(bytes.data(), bytes.size());
  return bytes.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
}

void append_document(Body& body, const BankShape& shape, const DocumentRecord& r, const Segment& segment,
                     int64_t index) {
  const ExportRecord record{r.id,
                            r.n_tokens,
                            r.name_space.size(),
                            r.external_id.size(),
                            r.metadata_json.size(),
                            r.content_hash.size(),
                            r.text.size()};
  body.append(&record, sizeof record);
  for (const std::string* text : {&r.name_space, &r.external_id, &r.metadata_json, &r.content_hash, &r.text}) {
    body.append(*text);
  }
  const int64_t first = segment.chunk_starts()[static_cast<size_t>(index)];
  for (int l = 0; l < shape.n_layers(); ++l) {
    const Tensor keys = segment.keys(l).slice_rows(first, first + r.n_chunks);
    body.append(keys.data, static_cast<size_t>(keys.bytes()));
  }
  for (int l = 0; l < shape.n_layers(); ++l) {
    const Tensor content = segment.content(l, index);
    body.append(content.data, static_cast<size_t>(content.bytes()));
  }
}

}  // namespace

ExportResult export_bank(const Bank& bank, const std::filesystem::path& file, bool with_text,
                         const std::function<void(int64_t, int64_t)>& progress) {
  const auto snapshot = bank.snapshot();
  const BankShape& shape = snapshot->shape;
  ExportResult result;
  const int64_t total = snapshot->n_documents();
  std::vector<std::pair<DocumentId, Snapshot::Slot>> places;  // ids ascend
  for (size_t s = 0; s < snapshot->segments.size(); ++s) {
    for (int64_t i = 0; i < snapshot->segments[s]->n_documents(); ++i) {
      if (snapshot->live[s][static_cast<size_t>(i)] == 0) continue;
      places.push_back({snapshot->segments[s]->id(i), {static_cast<int>(s), i}});
    }
  }
  std::sort(places.begin(), places.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  CompressedFile out(file);
  const std::string header = header_bytes(shape, with_text, total);
  out.write(header.data(), header.size());
  Body body;
  std::vector<uint64_t> checksums;
  for (const auto& [id, slot] : places) {
    std::optional<DocumentRecord> record = bank.find(id, *snapshot);
    if (!record) throw Error("document " + std::to_string(id) + " was forgotten meanwhile", file.string(), "try again");
    if (!with_text) record->text.clear();
    if (with_text && !record->has_text) {
      throw Error("the bank does not have the text of document " + std::to_string(id), file.string(),
                  "export without text");
    }
    append_document(body, shape, *record, *snapshot->segments[static_cast<size_t>(slot.segment)], slot.index);
    checksums.push_back(body.flush(out));
    if (progress)
      progress(++result.documents, total);
    else
      ++result.documents;
  }
  const uint64_t all = xxh3_64(checksums.data(), checksums.size() * sizeof(uint64_t));
  out.write(&all, sizeof all);
  result.bytes = out.commit();
  return result;
}

}  // namespace msa
