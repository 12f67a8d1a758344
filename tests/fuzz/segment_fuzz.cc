// Any bytes are either refused with an Error or give a segment whose keys and content lie inside them.
// The input is a list of edits (offset, byte) of a sound segment, whose header checksum is then made to match again, so
// that the checks behind it are reached; with an odd first byte it is the whole image itself.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "bank/segment_format.h"
#include "io/checksum.h"

namespace {

const msa::BankShape& shape() {
  static const msa::BankShape kShape{{1, 2}, 1, 4, 4, msa::DType::kBF16, "model"};
  return kShape;
}

std::vector<std::byte> sound_image() {
  std::vector<msa::EncodedDocument> documents(3);
  for (msa::EncodedDocument& document : documents) {
    document.n_tokens = 7;
    document.n_chunks = 2;
    for (int l = 0; l < 2; ++l) {
      document.keys.emplace_back(16);
      document.content.emplace_back(32);
      std::memset(document.keys.back().data(), 1, 16);
      std::memset(document.content.back().data(), 2, 32);
    }
  }
  const std::vector<msa::DocumentId> ids{1, 2, 5};
  std::vector<std::byte> image;
  msa::write_segment(shape(), 1, ids, documents,
                     [&](std::span<const std::byte> piece) { image.insert(image.end(), piece.begin(), piece.end()); });
  return image;
}

std::vector<std::byte> edited_image(std::span<const uint8_t> edits) {
  static const std::vector<std::byte> kSound = sound_image();
  static const size_t kChecksum = msa::segment_layout(shape(), 3, 6).checksum;
  std::vector<std::byte> image = kSound;
  for (; edits.size() >= 3; edits = edits.subspan(3)) {
    image[(edits[0] | size_t{edits[1]} << 8) % image.size()] = std::byte{edits[2]};
  }
  const uint64_t checksum = msa::xxh3_64(image.data(), kChecksum);
  std::memcpy(image.data() + kChecksum, &checksum, sizeof checksum);
  return image;
}

uint64_t read_all(const msa::Segment& segment) {
  uint64_t sum = segment.verify().size();
  for (int l = 0; l < shape().n_layers(); ++l) {
    const msa::Tensor keys = segment.keys(l);
    sum += msa::xxh3_64(keys.data, static_cast<size_t>(keys.bytes()));
    for (int64_t i = 0; i < segment.n_documents(); ++i) {
      const msa::Tensor content = segment.content(l, i);
      sum += msa::xxh3_64(content.data, static_cast<size_t>(content.bytes()));
    }
  }
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const uint8_t> input(data + 1, size - 1);
  const auto raw = std::as_bytes(input);
  const std::vector<std::byte> image = data[0] % 2 == 0 ? edited_image(input) : std::vector(raw.begin(), raw.end());
  void* memory = nullptr;  // of exactly this size, so that the sanitizer sees one byte too many
  if (::posix_memalign(&memory, msa::kSegmentAlignment, image.size()) != 0) std::abort();
  if (!image.empty()) std::memcpy(memory, image.data(), image.size());
  const std::shared_ptr<void> owner(memory, [](void* p) { std::free(p); });
  try {
    const auto segment =
        msa::Segment::view(owner, {static_cast<const std::byte*>(memory), image.size()}, shape(), "input");
    volatile uint64_t sink = read_all(*segment);
    static_cast<void>(sink);
  } catch (const msa::Error&) {
    // refused
  }
  return 0;
}
