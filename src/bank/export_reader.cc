#include <zstd.h>

#include <cstring>

#include "bank/segment_format.h"
#include "bank/transfer.h"
#include "bank/transfer_format.h"
#include "io/checksum.h"
#include "io/file.h"

namespace msa {
namespace {

constexpr const char* kAgain = "export it again";
constexpr size_t kStep = size_t{1} << 20;  // memory grows only as fast as bytes arrive

/// The decompressed bytes of a file.
class CompressedBytes {
 public:
  explicit CompressedBytes(const std::string& path) : file_(path), stream_(ZSTD_createDCtx()) {
    MSA_CHECK(stream_ != nullptr);
    in_ = {file_.data(), file_.size(), 0};
  }
  const std::string& path() const { return file_.path(); }

  /// Exactly `bytes` more; Error where the file ends before or is no zstd stream.
  std::string take(uint64_t bytes) {
    std::string taken;
    while (taken.size() < bytes) {
      const size_t step = static_cast<size_t>(std::min<uint64_t>(kStep, bytes - taken.size()));
      const size_t before = taken.size();
      taken.resize(before + step);
      if (read(taken.data() + before, step) != step) throw Error("the file is cut short", path(), kAgain);
    }
    return taken;
  }
  template <class T>
  T value() {
    T v;
    std::memcpy(&v, take(sizeof v).data(), sizeof v);
    return v;
  }
  void require_end() {
    char byte = 0;
    if (read(&byte, 1) != 0 || in_.pos != in_.size) throw Error("bytes follow the end of the export", path(), kAgain);
    if (left_ != 0) throw Error("the file is cut short", path(), kAgain);
  }

 private:
  struct Free {
    void operator()(ZSTD_DCtx* stream) const { ZSTD_freeDCtx(stream); }
  };
  size_t read(char* to, size_t bytes) {
    ZSTD_outBuffer out{to, bytes, 0};
    while (out.pos < bytes) {
      const size_t in_before = in_.pos, out_before = out.pos;
      if (left_ == 0 && in_.pos == in_.size) break;
      if (left_ == 0 && started_) break;  // one frame
      left_ = ZSTD_decompressStream(stream_.get(), &out, &in_);
      started_ = true;
      if (ZSTD_isError(left_) != 0) {
        throw Error(std::string("not an export, or damaged: ") + ZSTD_getErrorName(left_), path(), kAgain);
      }
      if (in_.pos == in_before && out.pos == out_before) break;  // it wants more than there is
    }
    return out.pos;
  }

  MappedFile file_;
  std::unique_ptr<ZSTD_DCtx, Free> stream_;
  ZSTD_inBuffer in_{};
  size_t left_ = 1;
  bool started_ = false;
};

}  // namespace

struct ExportReader::Impl {
  explicit Impl(const std::string& path) : bytes(path) { read_header(); }

  void read_header() {
    const std::string fixed = bytes.take(sizeof(ExportHeader));
    std::memcpy(&header, fixed.data(), sizeof header);
    if (std::memcmp(header.magic, kExportMagic, sizeof header.magic) != 0) fail("not an exported bank");
    if (header.version != kExportVersion) fail("export format version " + std::to_string(header.version));
    if (header.n_layers > kMaxLayers || header.fingerprint_bytes > kMaxFingerprintBytes || header.dtype > 1 ||
        header.has_text > 1) {
      fail("the header holds impossible sizes");
    }
    const std::string layers = bytes.take(header.n_layers * sizeof(int32_t));
    shape.fingerprint = bytes.take(header.fingerprint_bytes);
    const std::string all = fixed + layers + shape.fingerprint;
    if (bytes.value<uint64_t>() != xxh3_64(all.data(), all.size())) fail("the checksum of the header does not match");
    for (uint32_t l = 0; l < header.n_layers; ++l) {
      int32_t layer = 0;
      std::memcpy(&layer, layers.data() + l * sizeof layer, sizeof layer);
      shape.routing_layers.push_back(layer);
    }
    const auto bounded = [](uint32_t n) { return static_cast<int>(std::min(n, kMaxDimension + 1)); };
    shape.kv_heads = bounded(header.kv_heads);
    shape.head_dim = bounded(header.head_dim);
    shape.chunk_tokens = bounded(header.chunk_tokens);
    shape.dtype = header.dtype == 1 ? DType::kBF16 : DType::kF32;
    check_shape(shape, bytes.path());
  }

  [[noreturn]] void fail(const std::string& what) const { throw Error(what, bytes.path(), kAgain); }

  TransferredDocument parse(const std::string& body) {
    ExportRecord r;
    if (body.size() < sizeof r) fail("a document is too short");
    std::memcpy(&r, body.data(), sizeof r);
    if (r.id <= last_id || r.n_tokens < 1 || r.n_tokens > kMaxExportTokens) fail("a document has impossible numbers");
    last_id = r.id;
    const int64_t chunks = (r.n_tokens - 1) / shape.chunk_tokens + 1;
    uint64_t expected = sizeof r;
    for (const uint64_t n : {r.namespace_bytes, r.external_id_bytes, r.metadata_bytes, r.hash_bytes, r.text_bytes}) {
      if (n > body.size()) fail("a document's lengths do not fit");
      expected += n;
    }
    if (chunks > static_cast<int64_t>(body.size()) ||
        expected + static_cast<uint64_t>(chunks * shape.chunk_bytes()) != body.size()) {
      fail("a document's lengths do not fit");
    }
    return cut(body, r, chunks);
  }

  TransferredDocument cut(const std::string& body, const ExportRecord& r, int64_t chunks) {
    TransferredDocument d;
    size_t at = sizeof r;
    const auto text = [&](uint64_t n) {
      at += n;
      return body.substr(at - n, n);
    };
    d.id = r.id;
    d.input.name_space = text(r.namespace_bytes);
    d.input.external_id = text(r.external_id_bytes);
    d.input.metadata_json = text(r.metadata_bytes);
    const std::string hash = text(r.hash_bytes);
    d.input.text = text(r.text_bytes);
    if (header.has_text == 0) d.input.withheld_hash = hash;
    if (header.has_text != 0 && content_hash(d.input.text) != hash) fail("a document's text does not match its hash");
    if (hash.size() != content_hash("").size()) fail("a document's hash has another length");
    d.encoded.n_tokens = r.n_tokens;
    d.encoded.n_chunks = chunks;
    const auto rows = [&](std::vector<Buffer>& to, int64_t rows_per_chunk) {
      const auto n = static_cast<size_t>(chunks * rows_per_chunk * shape.row_bytes());
      std::memcpy(to.emplace_back(n).data(), body.data() + at, n);
      at += n;
    };
    for (int l = 0; l < shape.n_layers(); ++l) rows(d.encoded.keys, 1);
    for (int l = 0; l < shape.n_layers(); ++l) rows(d.encoded.content, 2);
    return d;
  }

  std::optional<TransferredDocument> next() {
    if (done == header.n_documents) {
      if (!ended) {
        const uint64_t all = xxh3_64(checksums.data(), checksums.size() * sizeof(uint64_t));
        if (bytes.value<uint64_t>() != all) fail("the checksum of the whole does not match");
        bytes.require_end();
        ended = true;
      }
      return std::nullopt;
    }
    const auto size = bytes.value<uint64_t>();
    if (size > kMaxExportRecord) fail("a document is impossibly long");
    const std::string body = bytes.take(size);
    checksums.push_back(bytes.value<uint64_t>());
    if (checksums.back() != xxh3_64(body.data(), body.size())) fail("the checksum of a document does not match");
    ++done;
    return parse(body);
  }

  CompressedBytes bytes;
  ExportHeader header{};
  BankShape shape;
  uint64_t done = 0;
  int64_t last_id = 0;
  bool ended = false;
  std::vector<uint64_t> checksums;
};

ExportReader::ExportReader(const std::filesystem::path& file) : impl_(std::make_unique<Impl>(file.string())) {}
ExportReader::~ExportReader() = default;
const BankShape& ExportReader::shape() const { return impl_->shape; }
int64_t ExportReader::n_documents() const { return static_cast<int64_t>(impl_->header.n_documents); }
bool ExportReader::has_text() const { return impl_->header.has_text != 0; }
std::optional<TransferredDocument> ExportReader::next() { return impl_->next(); }

}  // namespace msa
