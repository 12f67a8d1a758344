// The bank as its callers see it; every case runs in memory and on disk.
#include "bank/bank.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bank_testing.h"
#include "core/error.h"

namespace msa {
namespace {

namespace fs = std::filesystem;
using testing::add;
using testing::Batch;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::random_batch;
using testing::small_shape;

class BankTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ("bank_test." + std::to_string(::getpid()));
    fs::remove_all(folder_);
    bank_ =
        GetParam() ? Bank::create_or_open(folder_, small_shape(), BankMode::kWrite) : Bank::in_memory(small_shape());
  }
  void TearDown() override {
    bank_.reset();
    fs::remove_all(folder_);
  }

  std::mt19937 random_{7};
  fs::path folder_;
  std::unique_ptr<Bank> bank_;
};

INSTANTIATE_TEST_SUITE_P(Places, BankTest, ::testing::Bool(),
                         [](const auto& place) { return place.param ? "disk" : "memory"; });

TEST_P(BankTest, GivesBackWhatWasAdded) {
  const Batch batch = random_batch(*bank_, 5, random_);
  ASSERT_TRUE(add(*bank_, batch).committed());
  EXPECT_EQ(bank_->size(), 5);
  const auto snapshot = bank_->snapshot();
  ASSERT_EQ(snapshot->segments.size(), 1u);
  const Segment& segment = *snapshot->segments[0];
  const BankShape shape = small_shape();
  for (int64_t i = 0; i < 5; ++i) {
    const EncodedDocument& document = batch.documents[static_cast<size_t>(i)];
    EXPECT_EQ(segment.id(i), batch.ids[static_cast<size_t>(i)]);
    const int64_t first = segment.chunk_starts()[static_cast<size_t>(i)];
    for (int l = 0; l < shape.n_layers(); ++l) {
      const Tensor keys = segment.keys(l).slice_rows(first, first + document.n_chunks);
      EXPECT_EQ(std::memcmp(keys.data, document.keys[static_cast<size_t>(l)].data(), static_cast<size_t>(keys.bytes())),
                0);
      const Tensor content = segment.content(l, i);
      EXPECT_EQ(content.describe(), "BF16 [" + std::to_string(document.n_chunks) + ", 2, 20]");
      EXPECT_EQ(std::memcmp(content.data, document.content[static_cast<size_t>(l)].data(),
                            static_cast<size_t>(content.bytes())),
                0);
    }
    const auto record = bank_->find(segment.id(i));
    ASSERT_TRUE(record.has_value());
    EXPECT_EQ(record->text, batch.inputs[static_cast<size_t>(i)].text);
    EXPECT_EQ(record->metadata_json, batch.inputs[static_cast<size_t>(i)].metadata_json);
    EXPECT_EQ(record->n_tokens, document.n_tokens);
    EXPECT_EQ(record->n_chunks, document.n_chunks);
    EXPECT_EQ(record->created.size(), 24u);
  }
  EXPECT_THAT(bank_->verify(), IsEmpty());
}

TEST_P(BankTest, FindsByExternalIdOrWithoutOneByText) {
  Batch batch = random_batch(*bank_, 3, random_);
  batch.inputs[2].external_id.clear();
  ASSERT_TRUE(add(*bank_, batch).committed());
  EXPECT_EQ(bank_->find_by_external_id("ns", "doc-2")->id, 2);
  EXPECT_FALSE(bank_->find_by_external_id("other", "doc-2").has_value());
  EXPECT_FALSE(bank_->find_by_external_id("ns", "").has_value());
  EXPECT_EQ(bank_->find_unnamed("ns", content_hash("text of document 3"))->id, 3);
  EXPECT_FALSE(bank_->find_unnamed("ns", content_hash("text of document 2")).has_value()) << "it has a name";
  EXPECT_FALSE(bank_->find_unnamed("ns", content_hash("unknown")).has_value());
  EXPECT_FALSE(bank_->find(99).has_value());
}

TEST_P(BankTest, RefusesDuplicatesAsAWhole) {
  ASSERT_TRUE(add(*bank_, random_batch(*bank_, 2, random_)).committed());
  Batch batch = random_batch(*bank_, 4, random_);
  batch.inputs[1].external_id = "doc-1";                      // of a live document
  batch.inputs[3].external_id = batch.inputs[0].external_id;  // of an earlier input
  EXPECT_THAT(add(*bank_, batch).duplicates, ElementsAre(1u, 3u));
  EXPECT_EQ(bank_->size(), 2);
  batch.inputs[1].name_space = "other";
  batch.inputs[3].external_id = "";
  batch.inputs[2].external_id = "";
  EXPECT_TRUE(add(*bank_, batch).committed());
  EXPECT_EQ(bank_->size(), 6);
  EXPECT_TRUE(bank_->remove(1));
  batch = random_batch(*bank_, 1, random_);
  batch.inputs[0].external_id = "doc-1";  // free again
  EXPECT_TRUE(add(*bank_, batch).committed());
}

TEST_P(BankTest, RemovalIsSeenByLaterSnapshotsOnly) {
  ASSERT_TRUE(add(*bank_, random_batch(*bank_, 3, random_)).committed());
  ASSERT_TRUE(add(*bank_, random_batch(*bank_, 3, random_)).committed());
  const auto before = bank_->snapshot();
  EXPECT_TRUE(bank_->remove(4));
  EXPECT_FALSE(bank_->remove(4));
  EXPECT_FALSE(bank_->remove(77));
  const auto after = bank_->snapshot();
  EXPECT_TRUE(before->is_live(4));
  EXPECT_EQ(before->n_documents(), 6);
  EXPECT_FALSE(after->is_live(4));
  EXPECT_EQ(after->n_documents(), 5);
  EXPECT_LT(after->n_chunks(), before->n_chunks());
  EXPECT_EQ(after->live[0].data(), before->live[0].data()) << "an untouched segment's flags are shared";
  EXPECT_FALSE(bank_->find(4).has_value());
  EXPECT_EQ(bank_->find(4, *before)->text, "text of document 4");
  EXPECT_FALSE(bank_->find(4, *after).has_value());
  EXPECT_THAT(bank_->verify(), IsEmpty());
}

TEST_P(BankTest, ListsAndCounts) {
  ASSERT_TRUE(add(*bank_, random_batch(*bank_, 6, random_)).committed());
  ASSERT_TRUE(bank_->remove(2));
  const auto ids = [](const std::vector<DocumentRecord>& records) {
    std::vector<DocumentId> all;
    for (const DocumentRecord& r : records) all.push_back(r.id);
    return all;
  };
  EXPECT_THAT(ids(bank_->list()), ElementsAre(1, 3, 4, 5, 6));
  EXPECT_THAT(ids(bank_->list(1, 2)), ElementsAre(3, 4));
  EXPECT_TRUE(bank_->list(0, 1)[0].text.empty());
  const BankStatistics statistics = bank_->statistics();
  EXPECT_EQ(statistics.documents, 5);
  EXPECT_EQ(statistics.deleted, 1);
  EXPECT_EQ(statistics.chunks, bank_->snapshot()->n_chunks());
  EXPECT_EQ(statistics.segments, 1);
  EXPECT_EQ(statistics.text_bytes, 5 * 18);
  EXPECT_EQ(statistics.key_bytes, bank_->snapshot()->segments[0]->n_chunks() * 20 * 2 * 3);
  EXPECT_EQ(statistics.content_bytes, 2 * statistics.key_bytes);
}

TEST_P(BankTest, TakesAnyText) {
  Batch batch = random_batch(*bank_, 3, random_);
  batch.inputs[0].text = std::string("nul\0 inside", 11);
  batch.inputs[1].text = "\xff\xfe no UTF-8";
  batch.inputs[2].text = "";
  batch.inputs[2].metadata_json = "";
  batch.inputs[0].external_id = "a'; DROP TABLE documents; --";
  ASSERT_TRUE(add(*bank_, batch).committed());
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(bank_->find(batch.ids[i])->text, batch.inputs[i].text);
  EXPECT_EQ(bank_->find(3)->metadata_json, "{}");
  EXPECT_EQ(bank_->find_by_external_id("ns", batch.inputs[0].external_id)->id, 1);
  EXPECT_THAT(bank_->verify(), IsEmpty());
}

TEST_P(BankTest, RefusesMetadataThatIsNoJsonObject) {
  for (const char* wrong : {"{", "[1]", "3", "plain", "{} {}"}) {
    Batch batch = random_batch(*bank_, 1, random_);
    batch.inputs[0].metadata_json = wrong;
    EXPECT_THROW(static_cast<void>(add(*bank_, batch)), Error) << wrong;
  }
  EXPECT_EQ(bank_->size(), 0);
}

TEST_P(BankTest, NeverReusesAnId) {
  ASSERT_TRUE(add(*bank_, random_batch(*bank_, 3, random_)).committed());
  EXPECT_TRUE(bank_->remove(3));
  EXPECT_THAT(bank_->reserve_ids(2), ElementsAre(4, 5));
  EXPECT_THAT(bank_->reserve_ids(1), ElementsAre(6));
  EXPECT_THAT(bank_->reserve_ids(0), IsEmpty());
}

TEST(ContentHash, IsXxh3) {  // of the reference implementation: xxh128sum of an empty file
  EXPECT_EQ(content_hash(""), "99aa06d3014798d86001c324468d497f");
}

TEST(BankShapeTest, RefusesNonsense) {
  const auto problem = [](auto&& change) -> std::string {
    BankShape shape = small_shape();
    change(shape);
    try {
      Bank::in_memory(shape);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(problem([](BankShape& s) { s.routing_layers.clear(); }), HasSubstr("routing layers"));
  EXPECT_THAT(problem([](BankShape& s) { s.routing_layers = {3, 3}; }), HasSubstr("ascending"));
  EXPECT_THAT(problem([](BankShape& s) { s.kv_heads = 0; }), HasSubstr("heads"));
  EXPECT_THAT(problem([](BankShape& s) { s.head_dim = -1; }), HasSubstr("dimension"));
  EXPECT_THAT(problem([](BankShape& s) { s.fingerprint = ""; }), HasSubstr("fingerprint"));
  EXPECT_THAT(problem([](BankShape& s) { s.dtype = DType::kI8; }), HasSubstr("BF16 or F32"));
}

}  // namespace
}  // namespace msa
