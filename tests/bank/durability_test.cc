// The bank's folder through crashes, other processes, other models, failing disks and damage.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
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
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::random_batch;
using testing::small_shape;

template <class Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

class DurabilityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) / ("durability_test." + std::to_string(::getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_);
    folder_ = root_ / "bank";
  }
  void TearDown() override { fs::remove_all(root_); }

  std::unique_ptr<Bank> open(BankMode mode, const BankShape& shape = small_shape()) const {
    return Bank::create_or_open(folder_, shape, mode);
  }
  /// A bank of `batches` commits with `count` documents each.
  void make_bank(int batches, int64_t count) {
    const auto bank = open(BankMode::kWrite);
    for (int i = 0; i < batches; ++i) ASSERT_TRUE(add(*bank, random_batch(*bank, count, random_)).committed());
  }
  fs::path segment(int64_t number) const { return folder_ / "segments" / std::to_string(number); }

  std::mt19937 random_{11};
  fs::path root_;
  fs::path folder_;
};

void write(const fs::path& file, const std::string& text) { std::ofstream(file, std::ios::binary) << text; }

TEST_F(DurabilityTest, ReopensWithEverything) {
  make_bank(3, 4);
  {
    const auto bank = open(BankMode::kWrite);
    EXPECT_TRUE(bank->remove(5));
  }
  const auto bank = Bank::open(folder_, BankMode::kWrite);
  EXPECT_EQ(bank->shape(), small_shape());
  EXPECT_EQ(bank->size(), 11);
  EXPECT_FALSE(bank->snapshot()->is_live(5));
  EXPECT_TRUE(bank->snapshot()->is_live(12));
  EXPECT_EQ(bank->find(12)->text, "text of document 12");
  EXPECT_EQ(bank->reserve_ids(1)[0], 13);
  EXPECT_THAT(bank->verify(), IsEmpty());
}

TEST_F(DurabilityTest, RefusesAnotherModel) {
  make_bank(1, 1);
  BankShape other = small_shape();
  other.fingerprint = "model-b";
  const std::string message = error_of([&] { open(BankMode::kRead, other); });
  EXPECT_THAT(message, HasSubstr("model-a"));
  EXPECT_THAT(message, HasSubstr("model-b"));
  other = small_shape(DType::kF32);
  EXPECT_THAT(error_of([&] { open(BankMode::kWrite, other); }), HasSubstr("another shape"));
  EXPECT_EQ(open(BankMode::kWrite)->size(), 1) << "a refused opening holds no lock";
}

TEST_F(DurabilityTest, AllowsOneWriterAndManyReaders) {
  make_bank(1, 2);
  const auto writer = open(BankMode::kWrite);
  EXPECT_THAT(error_of([&] { open(BankMode::kWrite); }), HasSubstr("another process writes to this bank"));
  const auto reader = open(BankMode::kRead);
  const auto second_reader = Bank::open(folder_, BankMode::kRead);
  EXPECT_EQ(reader->size(), 2);
  EXPECT_THAT(error_of([&] { reader->remove(1); }), HasSubstr("reading only"));
  EXPECT_THAT(error_of([&] { reader->reserve_ids(1); }), HasSubstr("reading only"));
}

TEST_F(DurabilityTest, ReadersFollowTheWriter) {
  make_bank(1, 2);
  const auto writer = open(BankMode::kWrite);
  const auto reader = open(BankMode::kRead);
  const auto before = reader->snapshot();
  EXPECT_EQ(reader->snapshot(), before) << "nothing changed: the same object";
  ASSERT_TRUE(add(*writer, random_batch(*writer, 3, random_)).committed());
  EXPECT_TRUE(writer->remove(1));
  EXPECT_TRUE(writer->remove(4));
  const auto after = reader->snapshot();
  EXPECT_EQ(before->n_documents(), 2);
  EXPECT_TRUE(before->is_live(1));
  EXPECT_EQ(after->n_documents(), 3);
  EXPECT_FALSE(after->is_live(1));
  EXPECT_FALSE(after->is_live(4));
  EXPECT_TRUE(after->is_live(5));
  EXPECT_EQ(after->segments[0], before->segments[0]) << "known segments stay mapped";
  EXPECT_EQ(after->commit, writer->snapshot()->commit);
  EXPECT_EQ(reader->find(1, *before)->text, "text of document 1");
}

TEST_F(DurabilityTest, ReadsWhileAnotherThreadWrites) {
  make_bank(1, 2);
  const auto bank = open(BankMode::kWrite);
  const auto reader = open(BankMode::kRead);
  std::thread writer([&] {
    std::mt19937 random(3);
    for (int i = 0; i < 10; ++i) {
      static_cast<void>(add(*bank, random_batch(*bank, 3, random)));
      bank->remove(3 + 3 * i);
    }
  });
  for (const Bank* source : {bank.get(), static_cast<Bank*>(reader.get())}) {
    int64_t last = 0;
    while (last != 22) {
      const auto snapshot = source->snapshot();
      int64_t live = 0;
      for (size_t s = 0; s < snapshot->segments.size(); ++s) {
        for (int64_t i = 0; i < snapshot->segments[s]->n_documents(); ++i)
          live += snapshot->live[s][static_cast<size_t>(i)];
      }
      ASSERT_EQ(live, snapshot->n_documents());
      last = live;
    }
  }
  writer.join();
  EXPECT_THAT(bank->verify(), IsEmpty());
}

TEST_F(DurabilityTest, AWriterSweepsWhatWasNeverCommitted) {
  make_bank(1, 2);
  fs::create_directories(segment(2));
  write(segment(2) / "segment.msa", "half a segm");
  fs::create_directories(segment(77));
  fs::create_directories(folder_ / "segments" / "notes");
  EXPECT_EQ(open(BankMode::kRead)->size(), 2);
  EXPECT_TRUE(fs::exists(segment(2))) << "a reader changes nothing";
  const auto bank = open(BankMode::kWrite);
  EXPECT_FALSE(fs::exists(segment(2)));
  EXPECT_FALSE(fs::exists(segment(77)));
  EXPECT_TRUE(fs::exists(folder_ / "segments" / "notes")) << "not ours";
  EXPECT_TRUE(fs::exists(segment(1)));
  EXPECT_TRUE(add(*bank, random_batch(*bank, 1, random_)).committed());
  EXPECT_THAT(bank->verify(), IsEmpty());
}

TEST_F(DurabilityTest, NamesAMissingSegment) {
  make_bank(2, 2);
  fs::remove_all(segment(2));
  for (const BankMode mode : {BankMode::kRead, BankMode::kWrite}) {
    EXPECT_THAT(error_of([&] { open(mode); }), HasSubstr("segments/2/segment.msa"));
  }
  EXPECT_THAT(Bank::verify(folder_), Contains(HasSubstr("segments/2/segment.msa")));
}

TEST_F(DurabilityTest, NoticesExchangedSegments) {
  make_bank(2, 2);
  fs::rename(segment(1), root_ / "kept");
  fs::rename(segment(2), segment(1));
  fs::rename(root_ / "kept", segment(2));
  EXPECT_THAT(error_of([&] { open(BankMode::kRead); }), HasSubstr("not the segment 1"));
}

TEST_F(DurabilityTest, VerifyFindsDamagedContent) {
  make_bank(2, 3);
  const fs::path file = segment(1) / "segment.msa";
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(static_cast<std::streamoff>(fs::file_size(file)) - 100);
  stream.put('\x5a').put('\x5a').put('\x5a');
  stream.close();
  EXPECT_EQ(open(BankMode::kRead)->size(), 6) << "opening reads headers only";
  int64_t done = 0;
  int64_t total = 0;
  const auto problems = Bank::verify(folder_, [&](int64_t d, int64_t t) {
    EXPECT_GT(d, done);
    done = d;
    total = t;
  });
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_THAT(problems[0], HasSubstr("segments/1/segment.msa: the checksum of bytes"));
  EXPECT_EQ(done, total);
}

TEST_F(DurabilityTest, RefusesFoldersOfOthers) {
  EXPECT_THAT(error_of([&] { open(BankMode::kRead); }), HasSubstr("there is no bank"));
  EXPECT_FALSE(fs::exists(folder_)) << "a reader makes nothing";
  EXPECT_THAT(error_of([&] { Bank::open(folder_, BankMode::kWrite); }), HasSubstr("there is no bank"));
  fs::create_directories(folder_);
  write(folder_ / "holiday.txt", "photos");
  EXPECT_THAT(error_of([&] { open(BankMode::kWrite); }), HasSubstr("holiday.txt"));
  EXPECT_FALSE(fs::exists(folder_ / "bank.lock"));
  write(root_ / "file", "x");
  folder_ = root_ / "file" / "bank";
  EXPECT_THAT(error_of([&] { open(BankMode::kWrite); }), HasSubstr("cannot be made"));
  folder_ = root_ / "file";
  EXPECT_THAT(error_of([&] { open(BankMode::kWrite); }), HasSubstr("file"));
  EXPECT_THAT(Bank::verify(root_ / "nothing"), Contains(HasSubstr("there is no bank")));
}

TEST_F(DurabilityTest, FinishesACreationCutShort) {
  fs::create_directories(folder_ / "segments");
  write(folder_ / "bank.db", "");
  write(folder_ / "bank.lock", "");
  EXPECT_THAT(error_of([&] { open(BankMode::kRead); }), HasSubstr("there is no bank"));
  EXPECT_EQ(open(BankMode::kWrite)->size(), 0);
}

TEST_F(DurabilityTest, RefusesAForeignOrDamagedDatabase) {
  fs::create_directories(folder_);
  write(folder_ / "bank.db", std::string(5000, 'x'));
  for (const BankMode mode : {BankMode::kRead, BankMode::kWrite}) {
    EXPECT_THAT(error_of([&] { open(mode); }), HasSubstr("no bank's database"));
  }
  EXPECT_THAT(Bank::verify(folder_), Contains(HasSubstr("no bank's database")));
}

TEST_F(DurabilityTest, ByteFlipsInTheDatabaseNeverCrash) {
  make_bank(2, 20);
  std::ifstream in(folder_ / "bank.db", std::ios::binary);
  const std::string sound((std::istreambuf_iterator<char>(in)), {});
  ASSERT_EQ(fs::file_size(folder_ / "bank.db-wal"), 0u) << "the database is whole by itself";
  for (int i = 0; i < 300; ++i) {
    std::string damaged = sound;
    const int flips = 1 + static_cast<int>(random_() % 8);
    for (int f = 0; f < flips; ++f) {
      // The first pages hold the schema and the roots of all tables: half of the flips go there.
      const size_t range = f % 2 == 0 ? damaged.size() : std::min<size_t>(damaged.size(), 4096);
      damaged[random_() % range] ^= static_cast<char>(1u << (random_() % 8));
    }
    write(folder_ / "bank.db", damaged);
    const std::string outcome = error_of([&] {
      const auto bank = Bank::open(folder_, BankMode::kRead);
      const auto snapshot = bank->snapshot();
      bank->list();
      bank->statistics();
      for (DocumentId id = 1; id <= 40; ++id) static_cast<void>(bank->find(id));
    });
    static_cast<void>(Bank::verify(folder_));
    ASSERT_FALSE(outcome.empty());
  }
}

/// Runs `action` while no file may grow beyond `bytes`, which fails writes as a full disk does.
template <class Action>
void with_file_limit(size_t bytes, Action&& action) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit limit = before;
  limit.rlim_cur = bytes;
  ::setrlimit(RLIMIT_FSIZE, &limit);
  action();
  ::setrlimit(RLIMIT_FSIZE, &before);
}

TEST_F(DurabilityTest, AFailingDiskLeavesTheLastCommit) {
  make_bank(1, 2);
  const auto bank = open(BankMode::kWrite);
  int64_t size = 2;
  int failed = 0;
  for (const size_t limit : {0, 100, 4096, 6000, 8192, 20000, 40000, 80000, 160000, 320000}) {
    Batch batch = random_batch(*bank, 4, random_);
    batch.inputs[0].text = std::string(100000, 'a');  // so that the database fails too, after the segment
    std::string outcome;
    with_file_limit(limit, [&] { outcome = error_of([&] { static_cast<void>(add(*bank, batch)); }); });
    if (outcome == "no error") size += 4;
    failed += outcome != "no error";
    ASSERT_EQ(bank->size(), size) << limit << " " << outcome;
    ASSERT_EQ(bank->statistics().documents, size);
    const auto folders = std::distance(fs::directory_iterator(folder_ / "segments"), fs::directory_iterator{});
    ASSERT_EQ(folders, static_cast<int64_t>(bank->snapshot()->segments.size())) << "nothing stays behind";
  }
  EXPECT_GE(failed, 4);
  EXPECT_LT(failed, 10);
  EXPECT_TRUE(add(*bank, random_batch(*bank, 1, random_)).committed());
  EXPECT_THAT(bank->verify(), IsEmpty());
}

constexpr int kCommitsEach = 15;

/// Opens the bank, adds one document and closes it, time and again; another writer's turn is an Error that says so.
/// Tells through `pipe` which ids are committed and, as a number below 0, how often it was refused.
[[noreturn]] void write_in_turns(const fs::path& folder, int pipe, unsigned seed) {
  std::mt19937 random(seed);
  DocumentId refused = 0;
  for (int commits = 0; commits < kCommitsEach;) {
    try {
      const auto bank = Bank::create_or_open(folder, small_shape(), BankMode::kWrite);
      const Batch batch = random_batch(*bank, 1, random);
      if (!add(*bank, batch).committed() || ::write(pipe, &batch.ids[0], sizeof batch.ids[0]) < 0) ::_exit(1);
      ++commits;
    } catch (const Error& error) {
      if (std::string(error.what()).find("another process writes to this bank") == std::string::npos) ::_exit(2);
      --refused;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
  }
  ::_exit(::write(pipe, &refused, sizeof refused) < 0 ? 3 : 0);
}

TEST_F(DurabilityTest, WritersOfSeveralProcessesNeverMeet) {
  make_bank(1, 1);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  std::vector<pid_t> children;
  for (unsigned seed = 1; seed <= 3; ++seed) {
    children.push_back(::fork());
    if (children.back() == 0) write_in_turns(folder_, ends[1], seed);
  }
  ::close(ends[1]);
  std::vector<DocumentId> committed{1};
  DocumentId refused = 0;
  for (DocumentId id = 0; ::read(ends[0], &id, sizeof id) == sizeof id;) {
    if (id > 0) committed.push_back(id);
    if (id < 0) refused -= id;
  }
  ::close(ends[0]);
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
  EXPECT_GT(refused, 0) << "they did want to write at once";
  EXPECT_EQ(committed.size(), 1u + 3 * kCommitsEach);
  const auto bank = open(BankMode::kWrite);
  EXPECT_THAT(bank->verify(), IsEmpty());
  std::vector<DocumentId> found;
  for (const DocumentRecord& record : bank->list()) found.push_back(record.id);
  EXPECT_THAT(found, ::testing::UnorderedElementsAreArray(committed));
}

/// Adds batches of three documents, removes one of each, and tells through `pipe` how many ids are committed.
[[noreturn]] void write_until_killed(const fs::path& folder, int pipe, unsigned seed) {
  std::mt19937 random(seed);
  const auto bank = Bank::create_or_open(folder, small_shape(), BankMode::kWrite);
  for (;;) {
    const Batch batch = random_batch(*bank, 3, random);
    if (!add(*bank, batch).committed() || ::write(pipe, &batch.ids[2], sizeof batch.ids[2]) < 0) ::_exit(1);
    bank->remove(batch.ids[0]);
  }
}

TEST_F(DurabilityTest, AKillAtAnyInstantLeavesTheLastCommit) {
  DocumentId acknowledged = 0;
  for (unsigned round = 0; round < 12; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) write_until_killed(folder_, ends[1], round);
    ::close(ends[1]);
    std::this_thread::sleep_for(std::chrono::microseconds(1000 + random_() % 150000));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    for (DocumentId id = 0; ::read(ends[0], &id, sizeof id) == sizeof id;) acknowledged = id;
    ::close(ends[0]);

    const auto bank = open(BankMode::kWrite);
    ASSERT_THAT(bank->verify(), IsEmpty());
    const auto snapshot = bank->snapshot();
    DocumentId last = 0;
    for (const auto& segment : snapshot->segments) {
      ASSERT_EQ(segment->n_documents() % 3, 0) << "a commit is whole";
      last = std::max(last, segment->ids().back());
    }
    ASSERT_GE(last, acknowledged) << "what was acknowledged is there";
    const auto folders = std::distance(fs::directory_iterator(folder_ / "segments"), fs::directory_iterator{});
    ASSERT_EQ(folders, static_cast<int64_t>(snapshot->segments.size()));
  }
  EXPECT_GT(acknowledged, 0);
}

}  // namespace
}  // namespace msa
