// Segment images from hostile hands: whatever the bytes are, opening or verifying says so and nothing crashes.
#include "bank/segment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "bank/segment_format.h"
#include "bank_testing.h"
#include "core/error.h"
#include "io/checksum.h"

namespace msa {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::random_document;
using testing::small_shape;

/// Memory of exactly this size, so that a sanitizer sees one byte too many.
std::shared_ptr<std::byte> exact_copy(const std::vector<std::byte>& bytes) {
  void* memory = nullptr;
  if (::posix_memalign(&memory, kSegmentAlignment, bytes.size() + (bytes.empty() ? 1 : 0)) != 0) throw std::bad_alloc();
  std::copy(bytes.begin(), bytes.end(), static_cast<std::byte*>(memory));
  return {static_cast<std::byte*>(memory), [](std::byte* p) { std::free(p); }};
}

class SegmentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<EncodedDocument> documents;
    std::vector<DocumentId> ids;
    for (DocumentId id = 3; id < 15; id += 2) {
      ids.push_back(id);
      documents.push_back(random_document(shape_, 1 + static_cast<int64_t>(random_() % 20), random_));
    }
    write_segment(shape_, 9, ids, documents, [this](std::span<const std::byte> piece) {
      image_.insert(image_.end(), piece.begin(), piece.end());
    });
    layout_ = segment_layout(shape_, ids.size(), header().n_chunks);
    ASSERT_EQ(image_.size(), layout_.file_bytes);
    ASSERT_EQ(outcome(image_), "sound");
  }

  SegmentHeader header() const {
    SegmentHeader h;
    std::memcpy(&h, image_.data(), sizeof h);
    return h;
  }

  /// "sound", or what opening or verifying said. Reads every byte that the segment offers.
  std::string outcome(const std::vector<std::byte>& bytes) const {
    const auto memory = exact_copy(bytes);
    try {
      const auto segment = Segment::view(memory, {memory.get(), bytes.size()}, shape_, "image");
      uint64_t sum = 0;
      for (int l = 0; l < shape_.n_layers(); ++l) {
        const Tensor keys = segment->keys(l);
        sum ^= xxh3_64(keys.data, static_cast<size_t>(keys.bytes()));
        for (int64_t i = 0; i < segment->n_documents(); ++i) {
          const Tensor content = segment->content(l, i);
          sum ^= xxh3_64(content.data, static_cast<size_t>(content.bytes()));
        }
      }
      EXPECT_NE(sum, 1u);
      const std::vector<std::string> problems = segment->verify();
      return problems.empty() ? "sound" : problems.front();
    } catch (const Error& error) {
      return error.what();
    }
  }

  /// The image with this value at this offset and the header's checksum made to match.
  template <class T>
  std::string outcome_with(size_t offset, T value) const {
    std::vector<std::byte> forged = image_;
    std::memcpy(forged.data() + offset, &value, sizeof value);
    const uint64_t checksum = xxh3_64(forged.data(), layout_.checksum);
    std::memcpy(forged.data() + layout_.checksum, &checksum, sizeof checksum);
    return outcome(forged);
  }

  std::mt19937 random_{5};
  BankShape shape_ = small_shape();
  std::vector<std::byte> image_;
  SegmentLayout layout_{};
};

TEST_F(SegmentTest, LaysLayersOutAligned) {
  EXPECT_EQ(layout_.keys % kSegmentPage, 0u);
  EXPECT_EQ(layout_.keys_stride % kSegmentAlignment, 0u);
  EXPECT_EQ(layout_.content_stride % kSegmentAlignment, 0u);
  EXPECT_EQ(layout_.content + 3 * layout_.content_stride, layout_.file_bytes);
}

TEST_F(SegmentTest, FindsItsDocuments) {
  const auto memory = exact_copy(image_);
  const auto segment = Segment::view(memory, {memory.get(), image_.size()}, shape_, "image");
  EXPECT_EQ(segment->number(), 9);
  EXPECT_EQ(segment->find(3), 0);
  EXPECT_EQ(segment->find(13), 5);
  for (const DocumentId absent : {-1, 0, 4, 14, 99}) EXPECT_FALSE(segment->find(absent).has_value());
}

TEST_F(SegmentTest, DetectsEveryTruncationAndExtension) {
  for (size_t n = 0; n < image_.size(); n += n < 6000 ? 1 : 97) {
    ASSERT_NE(outcome({image_.begin(), image_.begin() + static_cast<std::ptrdiff_t>(n)}), "sound") << n;
  }
  std::vector<std::byte> longer = image_;
  longer.push_back(std::byte{0});
  EXPECT_THAT(outcome(longer), HasSubstr("its header says"));
}

TEST_F(SegmentTest, DetectsEveryByteFlip) {
  const auto flip = [&](size_t at) {
    std::vector<std::byte> damaged = image_;
    damaged[at] ^= static_cast<std::byte>(1u << (random_() % 8));
    ASSERT_NE(outcome(damaged), "sound") << "byte " << at;
  };
  for (size_t at = 0; at < layout_.keys; ++at) flip(at);
  for (int i = 0; i < 4000; ++i) flip(layout_.keys + random_() % (image_.size() - layout_.keys));
}

TEST_F(SegmentTest, SurvivesRandomDamage) {
  for (int i = 0; i < 4000; ++i) {
    std::vector<std::byte> damaged = image_;
    const size_t n = 1 + random_() % 40;
    for (size_t f = 0; f < n; ++f) damaged[random_() % layout_.keys] = static_cast<std::byte>(random_());
    damaged[random_() % damaged.size()] ^= std::byte{1};
    damaged.resize(random_() % 4 == 0 ? random_() % damaged.size() : damaged.size());
    ASSERT_NE(outcome(damaged), "sound");
  }
}

TEST_F(SegmentTest, DetectsLyingHeadersWithAMatchingChecksum) {
  const auto number = HasSubstr("do not fit its size");
  const SegmentHeader h = header();
  EXPECT_THAT(outcome_with(offsetof(SegmentHeader, magic), 'X'), HasSubstr("not a segment"));
  EXPECT_THAT(outcome_with<uint32_t>(offsetof(SegmentHeader, version), 2), HasSubstr("version 2"));
  EXPECT_THAT(outcome_with<uint32_t>(offsetof(SegmentHeader, dtype), 7), HasSubstr("impossible"));
  EXPECT_THAT(outcome_with<uint32_t>(offsetof(SegmentHeader, kv_heads), 0), HasSubstr("key/value heads"));
  EXPECT_THAT(outcome_with<uint32_t>(offsetof(SegmentHeader, kv_heads), ~0u), HasSubstr("key/value heads"));
  EXPECT_THAT(outcome_with<uint32_t>(offsetof(SegmentHeader, head_dim), 1u << 31), HasSubstr("head dimension"));
  EXPECT_THAT(outcome_with<uint32_t>(offsetof(SegmentHeader, kv_heads), 65536), number);
  EXPECT_THAT(outcome_with<uint32_t>(offsetof(SegmentHeader, chunk_tokens), 0), HasSubstr("tokens in a chunk"));
  EXPECT_THAT(outcome_with<uint32_t>(offsetof(SegmentHeader, chunk_tokens), 8), HasSubstr("P=8"));
  EXPECT_THAT(outcome_with<uint32_t>(offsetof(SegmentHeader, n_layers), 0), HasSubstr("routing layers"));
  EXPECT_THAT(outcome_with<uint32_t>(offsetof(SegmentHeader, n_layers), ~0u), HasSubstr("impossible"));
  EXPECT_THAT(outcome_with<uint64_t>(offsetof(SegmentHeader, number), ~uint64_t{0}), number);
  EXPECT_THAT(outcome_with<uint64_t>(offsetof(SegmentHeader, fingerprint_bytes), ~uint64_t{0}),
              HasSubstr("impossible"));
  EXPECT_THAT(outcome_with<uint64_t>(offsetof(SegmentHeader, fingerprint_bytes), 3), HasSubstr("model mod,"));
  EXPECT_THAT(outcome_with<uint64_t>(offsetof(SegmentHeader, file_bytes), h.file_bytes + 1),
              HasSubstr("its header says"));
  for (const uint64_t wrong : {uint64_t{0}, uint64_t{1} << 32, uint64_t{1} << 61, ~uint64_t{0}}) {
    EXPECT_THAT(outcome_with(offsetof(SegmentHeader, n_documents), wrong), number);
    EXPECT_THAT(outcome_with(offsetof(SegmentHeader, n_chunks), wrong), number);
  }
  // One document or chunk more may hide in the padding before the data; then its values are wrong.
  EXPECT_NE(outcome_with(offsetof(SegmentHeader, n_documents), h.n_documents + 1), "sound");
  EXPECT_NE(outcome_with(offsetof(SegmentHeader, n_documents), h.n_documents - 1), "sound");
  EXPECT_THAT(outcome_with(offsetof(SegmentHeader, n_chunks), h.n_chunks + 1),
              AnyOf(number, HasSubstr("chunk starts")));
}

TEST_F(SegmentTest, DetectsLyingTablesWithAMatchingChecksum) {
  const auto ids = HasSubstr("document ids");
  const auto starts = HasSubstr("chunk starts");
  for (const int64_t wrong : {int64_t{0}, int64_t{-5}, int64_t{5}, INT64_MAX, INT64_MIN}) {
    EXPECT_THAT(outcome_with(layout_.ids, wrong), ids) << wrong;
  }
  EXPECT_THAT(outcome_with(layout_.chunk_starts, int64_t{1}), starts);
  EXPECT_THAT(outcome_with(layout_.chunk_starts + 8, int64_t{0}), starts);
  EXPECT_THAT(outcome_with(layout_.chunk_starts + 16, INT64_MAX), starts);
  EXPECT_THAT(outcome_with(layout_.chunk_starts + 8, INT64_MIN), starts);
  EXPECT_THAT(outcome_with(layout_.chunk_starts + 48, int64_t{1} << 40), starts);
  EXPECT_THAT(outcome_with(layout_.block_checksums, uint64_t{0}), HasSubstr("the checksum of its data block 0"));
}

TEST_F(SegmentTest, RefusesAnotherModel) {
  shape_.fingerprint = "model-b";
  EXPECT_THAT(outcome(image_), AllOf(HasSubstr("model-a"), HasSubstr("model-b")));
  shape_ = small_shape();
  shape_.routing_layers[2] = 6;
  EXPECT_THAT(outcome(image_), AllOf(HasSubstr("layers 2,3,5"), HasSubstr("layers 2,3,6")));
}

TEST_F(SegmentTest, OpensFilesOnly) {
  const std::string folder = ::testing::TempDir();
  EXPECT_THROW(Segment::open(folder + "/absent.msa", shape_), Error);
  EXPECT_THROW(Segment::open(folder, shape_), Error);
  const std::string empty = folder + "/segment_test.empty." + std::to_string(::getpid());
  std::ofstream(empty).close();
  EXPECT_THROW(Segment::open(empty, shape_), Error);
  std::remove(empty.c_str());
}

TEST(SegmentBlocks, AreVerifiedOneByOne) {
  BankShape shape = small_shape(DType::kF32);
  shape.head_dim = 512;
  std::mt19937 random(2);
  std::vector<EncodedDocument> documents;
  for (int i = 0; i < 4; ++i) documents.push_back(random_document(shape, 100, random));
  const std::vector<DocumentId> ids{1, 2, 3, 4};
  const auto segment = segment_in_memory(shape, 1, ids, documents);
  ASSERT_GT(segment->bytes(), 3 * kSegmentBlockBytes);
  EXPECT_TRUE(segment->verify().empty());
  segment->content(2, 3).as<float>()[0] = 1e9f;
  segment->keys(0).as<float>()[0] = 1e9f;
  EXPECT_EQ(segment->verify().size(), 2u);
}

}  // namespace
}  // namespace msa
