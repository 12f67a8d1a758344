// Any bytes as an exported file are either refused with an Error or give documents of the header's shape.
// With an even first byte the input is one document's body, in a stream with matching checksums; else the whole stream
// before compression, or (divisible by 3) the file itself.
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "bank/transfer.h"
#include "bank/transfer_format.h"
#include "core/error.h"
#include "io/checksum.h"

namespace {

template <class T>
void append(std::string& to, const T& value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string stream_of(const std::string& body) {
  msa::ExportHeader header{};
  std::copy(std::begin(msa::kExportMagic), std::end(msa::kExportMagic), header.magic);
  header.version = msa::kExportVersion;
  header.kv_heads = 1;
  header.head_dim = 4;
  header.chunk_tokens = 4;
  header.n_layers = 1;
  header.fingerprint_bytes = 1;
  header.n_documents = 1;
  std::string stream;
  append(stream, header);
  append(stream, int32_t{2});
  stream += "f";
  append(stream, msa::xxh3_64(stream.data(), stream.size()));
  append(stream, static_cast<uint64_t>(body.size()));
  stream += body;
  const uint64_t checksum = msa::xxh3_64(body.data(), body.size());
  append(stream, checksum);
  append(stream, msa::xxh3_64(&checksum, sizeof checksum));
  return stream;
}

std::string compressed(const std::string& stream) {
  std::string out(ZSTD_compressBound(stream.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), stream.data(), stream.size(), 1));
  return out;
}

void read_all(const std::string& path) {
  try {
    msa::ExportReader reader(path);
    while (const auto document = reader.next()) {
      MSA_CHECK(document->encoded.keys.size() == static_cast<size_t>(reader.shape().n_layers()));
      MSA_CHECK(document->encoded.n_chunks >= 1);
    }
  } catch (const msa::Error&) {
    // refused
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    bytes = compressed(stream_of(bytes));
  } else if (data[0] % 3 != 0) {
    bytes = compressed(bytes);
  }
  static const int kFile = ::memfd_create("export", 0);
  if (kFile < 0 || ::ftruncate(kFile, 0) != 0 ||
      ::pwrite(kFile, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    std::abort();
  }
  read_all("/proc/self/fd/" + std::to_string(kFile));
  return 0;
}
