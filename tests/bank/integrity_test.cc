// Flipped bits in every kind of file: each is an Error or changes nothing that a reader gets. Export and import;
// repair.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "bank/bank.h"
#include "bank/filter.h"
#include "bank/transfer.h"
#include "bank/writer_lock.h"
#include "bank_testing.h"
#include "core/error.h"
#include "core/log.h"
#include "fault_files.h"
#include "io/checksum.h"

namespace msa {
namespace {

namespace fs = std::filesystem;
using testing::add;
using ::testing::AnyOf;
using testing::Batch;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::random_batch;
using testing::small_shape;

std::string read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write(const fs::path& file, const std::string& bytes) { std::ofstream(file, std::ios::binary) << bytes; }

/// All that a reader can get out of a bank, the vectors included; throws Error.
std::string everything(const Bank& bank) {
  std::string all = bank.fingerprint();
  const auto snapshot = bank.snapshot();
  for (size_t s = 0; s < snapshot->segments.size(); ++s) {
    const Segment& segment = *snapshot->segments[s];
    for (int64_t i = 0; i < segment.n_documents(); ++i) {
      if (snapshot->live[s][static_cast<size_t>(i)] == 0) continue;
      const auto r = bank.find(segment.id(i), *snapshot);
      all += std::to_string(segment.id(i)) + (r ? r->text + r->metadata_json + r->created : "?");
      const auto chunks = segment.chunk_starts().subspan(static_cast<size_t>(i), 2);
      for (int l = 0; l < snapshot->shape.n_layers(); ++l) {
        const Tensor keys = segment.keys(l).slice_rows(chunks[0], chunks[1]);
        const Tensor content = segment.content(l, i);
        all += xxh3_128_hex(keys.data, static_cast<size_t>(keys.bytes()));
        all += xxh3_128_hex(content.data, static_cast<size_t>(content.bytes()));
      }
    }
  }
  for (const uint8_t flag : bank.permitted(*snapshot, Filter::parse("n >= 3"))) all += flag != 0 ? '1' : '0';
  for (const DocumentRecord& r : bank.list()) all += r.external_id;
  return all;
}

class IntegrityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_level("off");
    root_ = testing::folder_in_memory("integrity_test");
    fs::remove_all(root_);
    fs::create_directories(root_);
    testing::watch_files(root_, {});  // no waiting for the disk
    RecordProperty("seed", kSeed);
    const auto bank = Bank::create_or_open(root_ / "bank", small_shape(), BankMode::kWrite);
    for (int i = 0; i < 3; ++i) batches_.push_back(random_batch(*bank, 4, random_));
    for (const Batch& batch : batches_) ASSERT_TRUE(add(*bank, batch).committed());
    ASSERT_TRUE(bank->remove(2));
    ASSERT_TRUE(bank->reinstate(3, R"({"n": 30})"));
    sound_ = everything(*bank);
  }
  void TearDown() override {
    testing::unwatch_files();
    fs::remove_all(root_);
  }

  static std::string outcome(const fs::path& folder) {
    try {
      return everything(*Bank::open(folder, BankMode::kRead));
    } catch (const Error&) {
      return "error";
    }
  }
  std::string flipped(const std::string& bytes) {
    std::string damaged = bytes;
    damaged[random_() % damaged.size()] ^= static_cast<char>(1u << (random_() % 8));
    return damaged;
  }
  /// Flips one bit at a time; returns how many were noticed.
  int flip(const fs::path& file, int times) {
    const std::string bytes = read(file);
    int noticed = 0;
    for (int i = 0; i < times; ++i) {
      const std::string damaged = flipped(bytes);
      write(file, damaged);
      const std::string found = outcome(root_ / "bank");
      EXPECT_THAT(found, AnyOf(sound_, "error")) << file << " seed " << kSeed << " flip " << i;
      noticed += found == "error";
    }
    write(file, bytes);
    EXPECT_EQ(outcome(root_ / "bank"), sound_);
    return noticed;
  }

  static constexpr unsigned kSeed = 31;
  std::mt19937 random_{kSeed};
  fs::path root_;
  std::vector<Batch> batches_;
  std::string sound_;
};

TEST_F(IntegrityTest, FlipsInTheDatabase) { EXPECT_GT(flip(root_ / "bank" / "bank.db", 4000), 1000); }

TEST_F(IntegrityTest, FlipsInASegment) {
  EXPECT_GT(flip(root_ / "bank" / "segments" / "2" / "segment.msa", 2500), 2000);
}

TEST_F(IntegrityTest, FlipsInTheLockFile) { flip(root_ / "bank" / "bank.lock", 500); }

TEST_F(IntegrityTest, FlipsInALogThatACrashLeft) {
  int flips = 0, states = 0, noticed = 0;
  for (int64_t n = 0; n < 60; ++n) {
    const fs::path crashed = root_ / "crashed", tried = root_ / "tried";
    fs::remove_all(crashed);
    fs::copy(root_ / "bank", crashed, fs::copy_options::recursive);
    int status = 0;
    const pid_t killed = ::fork();
    if (killed == 0) {
      testing::watch_files(root_, {testing::FaultPlan::Kind::kKill, n, 0, 0.0});
      Bank::open(crashed, BankMode::kWrite)->remove(7);
      ::_exit(0);
    }
    ::waitpid(killed, &status, 0);
    if (!WIFSIGNALED(status)) break;
    fs::remove(crashed / "bank.db-shm");
    const std::string log = fs::exists(crashed / "bank.db-wal") ? read(crashed / "bank.db-wal") : "";
    if (log.empty()) continue;
    fs::remove_all(tried);
    fs::copy(crashed, tried, fs::copy_options::recursive);
    const std::string left = outcome(tried);  // the state before the removal or after it
    const bool removed = left != sound_;
    const int64_t noted = WriterLock::last_note(crashed / "bank.lock").commit;
    states += removed;
    for (int i = 0; i < 150; ++i, ++flips) {
      fs::remove_all(tried);
      fs::copy(crashed, tried, fs::copy_options::recursive);
      write(tried / "bank.db-wal", flipped(log));
      const std::string found = outcome(tried);
      noticed += found == "error";
      // Until its note is written the removal was not acknowledged: losing it is no wrong answer.
      const bool acknowledged = removed && noted > WriterLock::last_note(root_ / "bank" / "bank.lock").commit;
      ASSERT_THAT(found, AnyOf(left, "error", acknowledged ? left : sound_)) << "seed " << kSeed << " killed at " << n;
    }
  }
  EXPECT_GE(flips, 1500);
  EXPECT_GE(states, 2);
  EXPECT_GT(noticed, 100);
}

TEST_F(IntegrityTest, FlipsInTheIndexOfALogThatACrashLeft) {
  int flips = 0;
  for (int64_t n = 4; n < 60 && flips < 500; ++n) {
    const fs::path crashed = root_ / "crashed", tried = root_ / "tried";
    fs::remove_all(crashed);
    fs::copy(root_ / "bank", crashed, fs::copy_options::recursive);
    const pid_t killed = ::fork();
    if (killed == 0) {
      testing::watch_files(root_, {testing::FaultPlan::Kind::kKill, n, 0, 0.0});
      Bank::open(crashed, BankMode::kWrite)->remove(7);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(killed, &status, 0);
    const std::string index = fs::exists(crashed / "bank.db-shm") ? read(crashed / "bank.db-shm") : "";
    if (index.empty()) continue;
    const auto tried_with = [&](const std::string& bytes) {
      fs::remove_all(tried);
      fs::copy(crashed, tried, fs::copy_options::recursive);
      write(tried / "bank.db-shm", bytes);
      return outcome(tried);
    };
    const std::string left = tried_with(index);
    for (int i = 0; i < 50; ++i, ++flips) {
      // Nearly all of it is empty; its header and first entries are what a reader would believe.
      std::string damaged = index;
      damaged[random_() % 400] ^= static_cast<char>(1u << (random_() % 8));
      ASSERT_EQ(tried_with(damaged), left) << "seed " << kSeed << " killed at " << n;
    }
  }
  EXPECT_GE(flips, 500);
}

TEST_F(IntegrityTest, FlipsAndCutsInAnExport) {
  const fs::path file = root_ / "export";
  export_bank(*Bank::open(root_ / "bank", BankMode::kRead), file, true);
  const std::string bytes = read(file);
  const auto import = [&](const std::string& damaged) -> std::string {
    write(file, damaged);
    const auto bank = Bank::in_memory(small_shape());
    try {
      import_file(*bank, file, {});
    } catch (const Error&) {
      EXPECT_EQ(bank->size(), 0) << "nothing is added before everything is verified";
      return "error";
    }
    return bank->fingerprint();
  };
  const std::string sound = import(bytes);
  ASSERT_EQ(sound, Bank::open(root_ / "bank", BankMode::kRead)->fingerprint());
  int noticed = 0;
  for (int i = 0; i < 1500; ++i) {
    const std::string found = import(flipped(bytes));
    ASSERT_THAT(found, AnyOf(sound, "error")) << "seed " << kSeed << " flip " << i;
    noticed += found == "error";
  }
  EXPECT_GT(noticed, 1400);
  for (size_t n = 0; n < bytes.size(); n += 37) ASSERT_EQ(import(bytes.substr(0, n)), "error") << n;
  EXPECT_EQ(import(bytes + "x"), "error");
}

TEST_F(IntegrityTest, ImportMerges) {
  const fs::path file = root_ / "export";
  const auto from = Bank::open(root_ / "bank", BankMode::kRead);
  EXPECT_EQ(export_bank(*from, file, true).documents, 11);
  const auto copy = Bank::in_memory(small_shape());
  EXPECT_EQ(import_file(*copy, file, {}).kept.size(), 11u);
  EXPECT_EQ(copy->fingerprint(), from->fingerprint());
  EXPECT_EQ(copy->reserve_ids(1)[0], 13);

  const auto other = Bank::in_memory(small_shape());
  Batch batch = random_batch(*other, 3, random_);
  batch.inputs[0].external_id = "mine";
  batch.inputs[1].external_id = "doc-5";  // with another text than the file's
  batch.inputs[2].text = "text of document 6";
  batch.inputs[2].external_id = "doc-6";  // the same document under another id
  ASSERT_TRUE(add(*other, batch).committed());
  EXPECT_THROW(import_file(*other, file, {}), Error) << "ids 1 and 3 are taken and nothing can encode";
  EXPECT_EQ(other->size(), 3);
  const auto reencode = [&](DocumentId, const std::string&) {
    return testing::random_document(small_shape(), 9, random_);
  };
  const ImportResult merged = import_file(*other, file, reencode);
  EXPECT_THAT(merged.kept, ElementsAre(4, 7, 8, 9, 10, 11, 12));
  EXPECT_THAT(merged.reencoded, ElementsAre(std::pair<DocumentId, DocumentId>(1, 13), std::pair(3, 14)));
  EXPECT_EQ(merged.unchanged, 1);
  EXPECT_THAT(merged.conflicts, ElementsAre("doc-5"));
  EXPECT_EQ(other->find(13)->external_id, "doc-1");
  EXPECT_THAT(other->verify(), IsEmpty());
  EXPECT_EQ(import_file(*other, file, {}).unchanged, 10) << "once more adds nothing";
}

TEST_F(IntegrityTest, TextMayStayAtHome) {
  const fs::path file = root_ / "export";
  const auto from = Bank::open(root_ / "bank", BankMode::kRead);
  export_bank(*from, file, false);
  const auto copy = Bank::create_or_open(root_ / "copy", small_shape(), BankMode::kWrite);
  import_file(*copy, file, {});
  EXPECT_FALSE(copy->find(1)->has_text);
  EXPECT_EQ(copy->find(1)->text, "");
  EXPECT_EQ(copy->find(1)->content_hash, from->find(1)->content_hash);
  EXPECT_THAT(copy->verify(), IsEmpty());
  EXPECT_EQ(read(root_ / "copy" / "bank.db").find("text of document"), std::string::npos);
  EXPECT_THROW(export_bank(*copy, root_ / "again", true), Error);
  BankShape other = small_shape();
  other.fingerprint = "model-b";
  EXPECT_THROW(import_file(*Bank::in_memory(other), file, {}), Error);
}

TEST_F(IntegrityTest, RepairEncodesWhatIsDamaged) {
  std::vector<DocumentId> asked;
  const auto reencode = [&](DocumentId id, const std::string& text) -> EncodedDocument {
    asked.push_back(id);
    EXPECT_EQ(text, "text of document " + std::to_string(id));
    const Batch& batch = batches_[static_cast<size_t>(id - 1) / 4];
    const EncodedDocument& original = batch.documents[static_cast<size_t>(id - 1) % 4];
    EncodedDocument copy;
    copy.n_tokens = original.n_tokens;
    copy.n_chunks = original.n_chunks;
    for (const auto* part : {&original.keys, &original.content}) {
      for (const Buffer& b : *part) {
        auto& to = part == &original.keys ? copy.keys : copy.content;
        std::memcpy(to.emplace_back(b.capacity()).data(), b.data(), b.capacity());
      }
    }
    return copy;
  };
  const auto repair = [&] {
    asked.clear();
    return Bank::repair(root_ / "bank", small_shape(), reencode);
  };
  EXPECT_THAT(repair().reencoded, IsEmpty()) << "nothing to do";
  const fs::path first = root_ / "bank" / "segments" / "1" / "segment.msa";
  std::string bytes = read(first);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write(first, bytes);
  fs::remove_all(root_ / "bank" / "segments" / "3");
  EXPECT_EQ(outcome(root_ / "bank"), "error");
  EXPECT_THAT(repair().reencoded, ElementsAre(1, 2, 3, 4, 9, 10, 11, 12)) << "one block holds all four";
  EXPECT_THAT(Bank::verify(root_ / "bank"), IsEmpty());
  // The documents lie in other segments now, so compare them one by one.
  const auto bank = Bank::open(root_ / "bank", BankMode::kRead);
  EXPECT_EQ(everything(*bank).size(), sound_.size());
  EXPECT_EQ(bank->fingerprint(), sound_.substr(0, 32));
  EXPECT_FALSE(bank->snapshot()->is_live(2)) << "what was removed stays removed";
}

}  // namespace
}  // namespace msa
