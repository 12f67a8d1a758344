// Edits beyond adding: replacing, reinstating, states of the past, compaction and what it forgets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "bank/bank.h"
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

class EditTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ("edit_test." + std::to_string(::getpid()));
    fs::remove_all(folder_);
    bank_ =
        GetParam() ? Bank::create_or_open(folder_, small_shape(), BankMode::kWrite) : Bank::in_memory(small_shape());
  }
  void TearDown() override {
    bank_.reset();
    fs::remove_all(folder_);
  }
  Batch add_some(int64_t count) {
    Batch batch = random_batch(*bank_, count, random_);
    EXPECT_TRUE(add(*bank_, batch).committed());
    return batch;
  }
  /// A new text under an external id that lives already.
  DocumentId replace(const std::string& external_id, const std::string& text) {
    Batch batch = random_batch(*bank_, 1, random_);
    batch.inputs[0].external_id = external_id;
    batch.inputs[0].text = text;
    EXPECT_TRUE(bank_->add(batch.ids, batch.inputs, batch.documents, {.replace = true, .remove = {}}).committed());
    return batch.ids[0];
  }
  /// A moment after all commits so far and before all later ones.
  std::string now() {
    const std::string last = bank_->list().empty() ? "" : bank_->list().back().created;
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    const auto moment = std::chrono::system_clock::now();
    const auto seconds = std::chrono::system_clock::to_time_t(moment);
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(moment.time_since_epoch()).count() % 1000;
    char text[40];
    std::tm utc{};
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", ::gmtime_r(&seconds, &utc));
    std::snprintf(text + 19, sizeof text - 19, ".%03dZ", static_cast<int>(ms));
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    EXPECT_LT(last, std::string(text));
    return text;
  }
  std::vector<DocumentId> live(const Snapshot& snapshot) const {
    std::vector<DocumentId> ids;
    for (DocumentId id = 1; id < 100; ++id) {
      if (snapshot.is_live(id)) ids.push_back(id);
    }
    return ids;
  }
  void reopen() {
    if (!GetParam()) return;
    bank_.reset();
    bank_ = Bank::open(folder_, BankMode::kWrite);
  }
  /// True if a file of the bank's folder holds these bytes.
  bool on_disk(std::string_view needle) const {
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      const std::string bytes((std::istreambuf_iterator<char>(in)), {});
      if (bytes.find(needle) != std::string::npos) return true;
    }
    return false;
  }

  std::mt19937 random_{21};
  fs::path folder_;
  std::unique_ptr<Bank> bank_;
};

INSTANTIATE_TEST_SUITE_P(Places, EditTest, ::testing::Bool(),
                         [](const auto& place) { return place.param ? "disk" : "memory"; });

class EditOnDiskTest : public EditTest {};
INSTANTIATE_TEST_SUITE_P(Places, EditOnDiskTest, ::testing::Values(true), [](const auto&) { return "disk"; });

TEST_P(EditTest, ReplacingIsOneCommit) {
  add_some(3);
  const auto before = bank_->snapshot();
  EXPECT_EQ(replace("doc-2", "another text"), 4);
  const auto after = bank_->snapshot();
  EXPECT_EQ(after->commit, before->commit + 1);
  EXPECT_THAT(live(*before), ElementsAre(1, 2, 3));
  EXPECT_THAT(live(*after), ElementsAre(1, 3, 4));
  EXPECT_EQ(bank_->find_by_external_id("ns", "doc-2")->text, "another text");
  EXPECT_EQ(bank_->find_by_external_id("ns", "doc-2")->version, 2);
  EXPECT_EQ(bank_->find(2, *before)->text, "text of document 2");
  EXPECT_EQ(replace("doc-new", "a first text"), 5);
  EXPECT_EQ(bank_->find(5)->version, 1);
  reopen();
  EXPECT_THAT(live(*bank_->snapshot()), ElementsAre(1, 3, 4, 5));
  EXPECT_THAT(bank_->verify(), IsEmpty());
}

TEST_P(EditTest, AReplacementMayRemoveOthersToo) {
  add_some(4);
  Batch batch = random_batch(*bank_, 1, random_);
  batch.inputs[0].external_id = "doc-1";
  EXPECT_TRUE(
      bank_->add(batch.ids, batch.inputs, batch.documents, {.replace = true, .remove = {2, 3, 99}}).committed());
  EXPECT_THAT(live(*bank_->snapshot()), ElementsAre(4, 5));
}

TEST_P(EditTest, AddsOnlyWhileAnotherLives) {
  add_some(2);
  const auto add_while_2_lives = [&] {
    Batch batch = random_batch(*bank_, 1, random_);
    return bank_->add(batch.ids, batch.inputs, batch.documents, {.remove = {2}, .only_if_live = {1, 2}});
  };
  EXPECT_TRUE(add_while_2_lives().committed());
  const std::string before = bank_->fingerprint();
  const AddResult late = add_while_2_lives();
  EXPECT_FALSE(late.committed());
  EXPECT_THAT(late.gone, ElementsAre(2));
  EXPECT_THAT(live(*bank_->snapshot()), ElementsAre(1, 3));
  EXPECT_EQ(bank_->fingerprint(), before);
  // Without documents to add, too.
  const auto remove_3_while = [&](DocumentId id) {
    return bank_->add({}, {}, std::span<const EncodedDocument>(), {.remove = {3}, .only_if_live = {id}});
  };
  EXPECT_THAT(remove_3_while(2).gone, ElementsAre(2));
  EXPECT_THAT(live(*bank_->snapshot()), ElementsAre(1, 3));
  EXPECT_TRUE(remove_3_while(1).committed());
  EXPECT_THAT(live(*bank_->snapshot()), ElementsAre(1));
}

TEST_P(EditTest, RemovesManyInOneCommit) {
  add_some(5);
  const int64_t commit = bank_->snapshot()->commit;
  const std::vector<DocumentId> ids{2, 4, 4, 77};
  EXPECT_THAT(bank_->remove(ids), ElementsAre(2, 4));
  EXPECT_EQ(bank_->snapshot()->commit, commit + 1);
  EXPECT_THAT(bank_->remove(ids), IsEmpty());
  EXPECT_EQ(bank_->snapshot()->commit, commit + 1) << "nothing removed, nothing committed";
}

TEST_P(EditTest, ReinstatesWithoutEncoding) {
  add_some(3);
  const auto opened = GetParam() ? Bank::open(folder_, BankMode::kRead) : nullptr;
  const Bank* const reader = GetParam() ? opened.get() : bank_.get();
  const std::string hash = content_hash("text of document 2");
  EXPECT_FALSE(bank_->find_removed("ns", "doc-2", hash).has_value());
  ASSERT_TRUE(bank_->remove(2));
  EXPECT_THAT(live(*reader->snapshot()), ElementsAre(1, 3));
  EXPECT_EQ(bank_->find_removed("ns", "doc-2", hash)->id, 2);
  EXPECT_TRUE(bank_->reinstate(2, R"({"k": "v"})"));
  EXPECT_THAT(live(*bank_->snapshot()), ElementsAre(1, 2, 3));
  EXPECT_THAT(live(*reader->snapshot()), ElementsAre(1, 2, 3));
  EXPECT_EQ(bank_->find(2)->metadata_json, R"({"k": "v"})");
  EXPECT_EQ(bank_->find(2)->version, 2);
  EXPECT_TRUE(bank_->reinstate(3, R"({"k": 3})")) << "a live one gets other metadata";
  EXPECT_EQ(bank_->find(3)->metadata_json, R"({"k": 3})");
  EXPECT_FALSE(bank_->reinstate(99, "{}"));
  EXPECT_THROW(bank_->reinstate(3, "[]"), Error);
  ASSERT_TRUE(bank_->remove(1));
  replace("doc-1", "taken");
  EXPECT_FALSE(bank_->reinstate(1, "{}")) << "its external id is another's now";
  reopen();
  EXPECT_THAT(live(*bank_->snapshot()), ElementsAre(2, 3, 4));
  EXPECT_THAT(bank_->verify(), IsEmpty());
}

TEST_P(EditTest, ChangesTheMetadataOfALiveDocumentAlone) {
  add_some(2);
  EXPECT_TRUE(bank_->change_metadata(2, R"({"k": "v"})"));
  EXPECT_EQ(bank_->find(2)->metadata_json, R"({"k": "v"})");
  EXPECT_EQ(bank_->find(2)->version, 2);
  EXPECT_THROW(bank_->change_metadata(2, "[]"), Error);
  ASSERT_TRUE(bank_->remove(2));
  EXPECT_FALSE(bank_->change_metadata(2, "{}")) << "a removed one stays so";
  EXPECT_FALSE(bank_->change_metadata(99, "{}"));
  reopen();
  EXPECT_THAT(live(*bank_->snapshot()), ElementsAre(1));
  EXPECT_THAT(bank_->verify(), IsEmpty());
}

TEST_P(EditTest, AnswersFromAStateOfThePast) {
  const std::string start = now();
  add_some(2);
  const std::string two = now();
  replace("doc-1", "newer");
  ASSERT_TRUE(bank_->reinstate(2, R"({"year": 2})"));
  const std::string replaced = now();
  ASSERT_TRUE(bank_->remove(2));
  const std::string removed = now();
  ASSERT_TRUE(bank_->reinstate(2, R"({"year": 3})"));
  reopen();
  EXPECT_THAT(live(*bank_->snapshot_at(start)), IsEmpty());
  const auto then = bank_->snapshot_at(two);
  EXPECT_THAT(live(*then), ElementsAre(1, 2));
  EXPECT_EQ(bank_->find(1, *then)->text, "text of document 1");
  EXPECT_EQ(bank_->find(2, *then)->metadata_json, R"({"n": 2})");
  EXPECT_THAT(live(*bank_->snapshot_at(replaced)), ElementsAre(2, 3));
  EXPECT_EQ(bank_->find(2, *bank_->snapshot_at(replaced))->metadata_json, R"({"year": 2})");
  EXPECT_THAT(live(*bank_->snapshot_at(removed)), ElementsAre(3));
  EXPECT_THAT(live(*bank_->snapshot_at("2999-01-01")), ElementsAre(2, 3));
  for (const char* wrong : {"", "yesterday", "now", "2026", "2026-13-01", "12:00"}) {
    EXPECT_THROW(bank_->snapshot_at(wrong), Error) << wrong;
  }
}

TEST_P(EditTest, CompactionForgetsWhatIsNotLive) {
  const Batch first = add_some(5);
  add_some(5);
  ASSERT_TRUE(bank_->remove(2));
  replace("doc-7", "newer");
  ASSERT_TRUE(bank_->reinstate(4, R"({"k": "v"})"));
  const auto before = bank_->snapshot();
  const std::string fingerprint = bank_->fingerprint();
  const std::string past = now();
  ASSERT_TRUE(bank_->remove(9));
  const CompactionResult result = bank_->compact();
  EXPECT_EQ(result.documents_forgotten, 3);
  EXPECT_EQ(result.segments_before, 3);
  EXPECT_EQ(result.segments_after, 1);
  EXPECT_LT(result.bytes_after, result.bytes_before);
  EXPECT_THAT(live(*bank_->snapshot()), ElementsAre(1, 3, 4, 5, 6, 8, 10, 11));
  EXPECT_THAT(live(*before), ElementsAre(1, 3, 4, 5, 6, 8, 9, 10, 11)) << "a snapshot outlives it";
  EXPECT_FALSE(bank_->find(9, *before).has_value()) << "but the text is forgotten";
  EXPECT_EQ(bank_->statistics().deleted, 0);
  EXPECT_NE(bank_->fingerprint(), fingerprint);
  try {
    static_cast<void>(bank_->snapshot_at(past));
    ADD_FAILURE() << "a state with document 9 cannot be told any more";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("forgotten"));
    EXPECT_EQ(error.where(), "time");
  }
  reopen();
  EXPECT_THAT(bank_->verify(), IsEmpty());
  const auto after = bank_->snapshot();
  const auto slot = after->find(5);
  ASSERT_TRUE(slot.has_value());
  const Tensor content = after->segments[0]->content(1, slot->index);
  EXPECT_EQ(std::memcmp(content.data, first.documents[4].content[1].data(), static_cast<size_t>(content.bytes())), 0);
  EXPECT_EQ(bank_->compact().documents_forgotten, 0);
}

TEST_P(EditTest, SmallSegmentsMergeAndNothingIsForgotten) {
  std::vector<Batch> batches;
  std::string past;
  const auto opened = GetParam() ? Bank::open(folder_, BankMode::kRead) : nullptr;
  for (int i = 0; i < 70; ++i) {
    batches.push_back(add_some(1));
    if (i == 30) past = now();
    if (i % 7 == 3) {
      ASSERT_TRUE(bank_->remove(i - 1));
    }
    if (opened != nullptr && i % 5 == 0) {
      ASSERT_EQ(live(*opened->snapshot()), live(*bank_->snapshot()));
    }
  }
  const auto snapshot = bank_->snapshot();
  EXPECT_LT(snapshot->segments.size(), 16u);
  EXPECT_EQ(snapshot->n_documents(), 60);
  EXPECT_EQ(bank_->statistics().deleted, 10);
  const auto then = bank_->snapshot_at(past);
  EXPECT_TRUE(then->is_live(30));
  EXPECT_FALSE(then->is_live(23)) << "removed before";
  EXPECT_FALSE(then->is_live(32)) << "added later";
  EXPECT_FALSE(snapshot->is_live(30)) << "removed since";
  EXPECT_TRUE(bank_->reinstate(30, "{}"));
  const auto slot = bank_->snapshot()->find(30);
  ASSERT_TRUE(slot.has_value());
  const Tensor content = bank_->snapshot()->segments[static_cast<size_t>(slot->segment)]->content(0, slot->index);
  const Buffer& original = batches[29].documents[0].content[0];
  EXPECT_EQ(std::memcmp(content.data, original.data(), static_cast<size_t>(content.bytes())), 0);
  reopen();
  EXPECT_EQ(bank_->size(), 61);
  EXPECT_THAT(bank_->verify(), IsEmpty());
}

TEST_P(EditTest, TheFingerprintIsThatOfABankBuiltWithout) {
  const auto other = Bank::in_memory(small_shape());
  const Batch batch = random_batch(*bank_, 3, random_);
  ASSERT_TRUE(add(*bank_, batch).committed());
  ASSERT_TRUE(bank_->remove(2));
  other->reserve_ids(3);
  for (const size_t i : {0u, 2u}) {
    ASSERT_TRUE(other->add({&batch.ids[i], 1}, {&batch.inputs[i], 1}, {&batch.documents[i], 1}).committed());
  }
  EXPECT_EQ(bank_->fingerprint(), other->fingerprint());
  ASSERT_TRUE(bank_->reinstate(3, "{}"));
  EXPECT_NE(bank_->fingerprint(), other->fingerprint());
}

TEST_P(EditTest, FindsThePartsOfADocument) {
  Batch batch = random_batch(*bank_, 6, random_);
  const char* names[] = {"book#1", "book#12", "book#1a", "book#", "book", "books"};
  for (size_t i = 0; i < 6; ++i) batch.inputs[i].external_id = names[i];
  ASSERT_TRUE(add(*bank_, batch).committed());
  std::vector<std::string> found;
  for (const DocumentRecord& r : bank_->find_parts("ns", "book")) found.push_back(r.external_id);
  EXPECT_THAT(found, ::testing::UnorderedElementsAre("book#1", "book#12", "book"));
  EXPECT_THAT(bank_->find_parts("other", "book"), IsEmpty());
}

TEST_P(EditOnDiskTest, TheFolderIsAsLargeAsTheSizeLawSays) {
  BankShape shape = small_shape();  // that of the default model
  shape.routing_layers = {15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29};
  shape.kv_heads = 3;
  shape.head_dim = 64;
  shape.chunk_tokens = 64;
  bank_.reset();
  fs::remove_all(folder_);
  bank_ = Bank::create_or_open(folder_, shape, BankMode::kWrite);
  for (int i = 0; i < 20; ++i) add_some(10);
  const BankStatistics statistics = bank_->statistics();
  EXPECT_EQ(statistics.key_bytes + statistics.content_bytes, statistics.chunks * shape.chunk_bytes());
  bank_.reset();
  uintmax_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  bytes -= static_cast<uintmax_t>(statistics.text_bytes);
  const double law = 15 * (3 * 64 * 2 + 2 * 3 * 64 * 2);
  EXPECT_GE(static_cast<double>(bytes), law * static_cast<double>(statistics.chunks));
  EXPECT_LE(static_cast<double>(bytes), 1.03 * law * static_cast<double>(statistics.chunks));
}

TEST_P(EditOnDiskTest, ForgottenBytesAreNotOnTheDisk) {
  std::vector<std::string> needles;
  for (int round = 0; round < 4; ++round) {
    Batch batch = random_batch(*bank_, 20, random_);
    for (size_t i = 0; i < 20; ++i) {
      const std::string secret = "secret-" + std::to_string(round) + "-" + std::to_string(i) + "-";
      batch.inputs[i].text = secret + "text " + std::string(random_() % 9000, 'x') + " end-" + secret;
      batch.inputs[i].metadata_json = "{\"who\": \"" + secret + "meta\"}";
      batch.inputs[i].external_id = secret + "name";
      const auto* vector = static_cast<const char*>(batch.documents[i].keys[2].data());
      const auto* content = static_cast<const char*>(batch.documents[i].content[0].data());
      if (i % 3 != 0) continue;
      needles.insert(needles.end(), {secret + "text", "end-" + secret, secret + "meta", secret + "name"});
      needles.insert(needles.end(), {std::string(vector, 40), std::string(content, 40)});
    }
    ASSERT_TRUE(add(*bank_, batch).committed());
    for (size_t i = 0; i < 20; i += 3) {
      if (i == 3) {
        ASSERT_TRUE(bank_->reinstate(batch.ids[i], R"({"other": 1})"));
      }
      if (i == 6) {
        ASSERT_TRUE(bank_->remove(replace(batch.inputs[i].external_id, "newer")));
      }
      bank_->remove(batch.ids[i]);
    }
  }
  for (const std::string& needle : needles) ASSERT_TRUE(on_disk(needle)) << "the search finds what is there";
  bank_->compact();
  for (const std::string& needle : needles) ASSERT_FALSE(on_disk(needle)) << needle;
  EXPECT_THAT(bank_->verify(), IsEmpty());
}

TEST_P(EditOnDiskTest, AReaderFollowsACompaction) {
  add_some(5);
  add_some(5);
  const auto reader = Bank::open(folder_, BankMode::kRead);
  const auto before = reader->snapshot();
  ASSERT_TRUE(bank_->remove(3));
  ASSERT_TRUE(bank_->remove(4));
  ASSERT_TRUE(bank_->reinstate(4, "{}"));
  bank_->compact();
  EXPECT_THAT(live(*reader->snapshot()), ElementsAre(1, 2, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_EQ(before->n_documents(), 10);
  EXPECT_EQ(before->segments[0]->verify(), std::vector<std::string>{}) << "still mapped";
}

TEST_P(EditOnDiskTest, ReadersNeverStumbleOverCompactions) {
  add_some(3);
  std::atomic<bool> done = false;
  std::thread reading([&] {
    while (!done) {
      const auto reader = Bank::open(folder_, BankMode::kRead);
      for (int i = 0; i < 5; ++i) {
        const auto snapshot = reader->snapshot();
        EXPECT_THAT(snapshot->segments.empty() ? std::vector<std::string>{} : snapshot->segments[0]->verify(),
                    IsEmpty());
        EXPECT_GE(reader->snapshot_at("2999-01-01")->n_documents(), 3);
      }
      EXPECT_THAT(Bank::verify(folder_), IsEmpty());
    }
  });
  for (int i = 0; i < 60; ++i) {
    const Batch batch = add_some(2);
    bank_->remove(batch.ids[0]);
    if (i % 3 == 0) bank_->compact();
  }
  done = true;
  reading.join();
}

}  // namespace
}  // namespace msa
