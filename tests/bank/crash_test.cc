// Crashes, failing disks and power losses during random edits of a bank: what was acknowledged is there, bit for bit,
// and nothing else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include "bank/bank.h"
#include "bank_testing.h"
#include "core/error.h"
#include "core/log.h"
#include "fault_files.h"
#include "io/checksum.h"

namespace msa {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using testing::FaultPlan;
using ::testing::IsEmpty;
using testing::random_batch;
using testing::small_shape;

/// Everything that is known of a live document, the bytes of its vectors included, by id.
using Contents = std::map<DocumentId, std::string>;

std::string describe(const BankShape& shape, const DocumentInput& input, const DocumentRows& rows) {
  Xxh3 vectors;
  const auto bytes = static_cast<size_t>(rows.n_chunks * shape.row_bytes());
  for (const std::byte* keys : rows.keys) vectors.update(keys, bytes);
  for (const std::byte* content : rows.content) vectors.update(content, 2 * bytes);
  return input.external_id + "|" + input.text + "|" + input.metadata_json + "|" + vectors.hex();
}

Contents contents_of(const Bank& bank) {
  Contents all;
  const auto snapshot = bank.snapshot();
  for (size_t s = 0; s < snapshot->segments.size(); ++s) {
    const Segment& segment = *snapshot->segments[s];
    for (int64_t i = 0; i < segment.n_documents(); ++i) {
      if (snapshot->live[s][static_cast<size_t>(i)] == 0) continue;
      const auto r = bank.find(segment.id(i));
      const DocumentInput input{r ? r->text : "?", r ? r->external_id : "?", "ns", r ? r->metadata_json : "?"};
      all[segment.id(i)] = describe(bank.shape(), input, segment.rows(i));
    }
  }
  return all;
}

/// A random edit, decided before it is made, and what the bank holds after it.
class Edit {
 public:
  Edit(Bank& bank, const Contents& before, std::mt19937& random) : after_(before) { choose(bank, before, random); }

  void make(Bank& bank) const {
    switch (kind_) {
      case Kind::kAdd:
        if (!bank.add(batch_.ids, batch_.inputs, batch_.documents, {.replace = true, .remove = {}}).committed()) {
          throw std::logic_error("a duplicate");
        }
        break;
      case Kind::kRemove: bank.remove(ids_); break;
      case Kind::kRetag: bank.reinstate(ids_[0], metadata_); break;
      case Kind::kCompact: bank.compact(); break;
    }
  }
  const Contents& after() const { return after_; }

 private:
  enum class Kind { kAdd, kRemove, kRetag, kCompact };

  void choose(Bank& bank, const Contents& before, std::mt19937& random) {
    if (before.size() > 12) return drop(before, random, 5);
    switch (random() % 8) {
      case 0: return drop(before, random, 1 + random() % 2);
      case 1: kind_ = Kind::kCompact; return;
      case 2:
        if (!before.empty()) return retag(bank, before, random);
        [[fallthrough]];
      case 3:
        if (!before.empty()) return prepare(bank, random, bank.find(before.begin()->first)->external_id);
        [[fallthrough]];
      default: return prepare(bank, random, "");
    }
  }

  void drop(const Contents& before, std::mt19937& random, size_t count) {
    kind_ = Kind::kRemove;
    for (const auto& [id, text] : before) {
      if (ids_.size() < count && random() % 2 == 0) ids_.push_back(id);
    }
    for (const DocumentId id : ids_) after_.erase(id);
  }
  void retag(const Bank& bank, const Contents& before, std::mt19937& random) {
    kind_ = Kind::kRetag;
    ids_ = {before.rbegin()->first};
    const auto record = bank.find(ids_[0]);
    metadata_ = "{\"r\": " + std::to_string(random() % 1000) + "}";
    const auto slot = bank.snapshot()->find(ids_[0]);
    const auto rows = bank.snapshot()->segments[static_cast<size_t>(slot->segment)]->rows(slot->index);
    after_[ids_[0]] = describe(bank.shape(), {record->text, record->external_id, "ns", metadata_}, rows);
  }
  void prepare(Bank& bank, std::mt19937& random, const std::string& replaced) {
    kind_ = Kind::kAdd;
    batch_ = random_batch(bank, 1 + static_cast<int64_t>(random() % 3), random);
    batch_.inputs[0].text += std::string(random() % 6000, 'x');
    if (!replaced.empty()) {
      batch_.inputs[0].external_id = replaced;
      after_.erase(bank.find_by_external_id("ns", replaced)->id);
    }
    for (size_t i = 0; i < batch_.ids.size(); ++i) {
      const EncodedDocument& d = batch_.documents[i];
      DocumentRows rows;
      rows.n_chunks = d.n_chunks;
      for (const Buffer& keys : d.keys) rows.keys.push_back(static_cast<const std::byte*>(keys.data()));
      for (const Buffer& content : d.content) rows.content.push_back(static_cast<const std::byte*>(content.data()));
      after_[batch_.ids[i]] = describe(bank.shape(), batch_.inputs[i], rows);
    }
  }

  Kind kind_ = Kind::kAdd;
  Contents after_;
  testing::Batch batch_;
  std::vector<DocumentId> ids_;
  std::string metadata_;
};

uint64_t hash_of(const Contents& contents) {
  std::string all;
  for (const auto& [id, text] : contents) all += std::to_string(id) + "=" + text + "\n";
  return xxh3_64(all.data(), all.size());
}

class CrashTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_level("off");  // faults are warned about by the hundred
    root_ = testing::folder_in_memory("crash_test");
    fs::remove_all(root_);
    fs::create_directories(root_);
    folder_ = root_ / "bank";
  }
  void TearDown() override {
    testing::unwatch_files();
    fs::remove_all(root_);
  }
  std::unique_ptr<Bank> open(const fs::path& folder) const {
    return Bank::create_or_open(folder, small_shape(), BankMode::kWrite);
  }

  fs::path root_;
  fs::path folder_;
};

struct Report {
  uint64_t before = 0;  // contents that are acknowledged
  uint64_t after = 0;   // contents if the edit under way is committed
};

/// Edits until the plan kills it; tells before each edit what is acknowledged and what it is about to do.
[[noreturn]] void edit_until_killed(const fs::path& folder, int pipe, unsigned seed, const FaultPlan& plan) {
  std::mt19937 random(seed);
  testing::watch_files(folder, plan);
  const auto bank = Bank::create_or_open(folder, small_shape(), BankMode::kWrite);
  Contents contents = contents_of(*bank);
  for (int i = 0; i < 8; ++i) {
    const Edit edit(*bank, contents, random);
    const Report report{hash_of(contents), hash_of(edit.after())};
    if (::write(pipe, &report, sizeof report) != sizeof report) ::_exit(1);
    edit.make(*bank);
    contents = edit.after();
  }
  const Report report{hash_of(contents), hash_of(contents)};
  ::_exit(::write(pipe, &report, sizeof report) == sizeof report ? 0 : 1);
}

TEST_F(CrashTest, AThousandKillsLoseNothing) {
  constexpr unsigned kSeed = 20261124;
  RecordProperty("seed", kSeed);
  std::mt19937 random(kSeed);
  Contents last;
  int kills = 0, committed_under_way = 0;
  for (unsigned round = 0; kills < 1000; ++round) {
    ASSERT_LT(round, 3000u) << "kills are too rare";
    FaultPlan plan{FaultPlan::Kind::kKill, static_cast<int64_t>(random() % 120), 0,
                   static_cast<double>(random() % 3) / 2.0};
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) edit_until_killed(folder_, ends[1], kSeed + round, plan);
    ::close(ends[1]);
    Report report{hash_of(last), hash_of(last)};
    while (::read(ends[0], &report, sizeof report) == sizeof report) {
    }
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) ++kills;
    ASSERT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << "seed " << kSeed << " round " << round;

    const auto bank = open(folder_);
    ASSERT_THAT(bank->verify(), IsEmpty()) << "seed " << kSeed << " round " << round;
    last = contents_of(*bank);
    ASSERT_THAT(hash_of(last), AnyOf(report.before, report.after)) << "seed " << kSeed << " round " << round;
    committed_under_way += hash_of(last) != report.before;
    const auto folders = std::distance(fs::directory_iterator(folder_ / "segments"), fs::directory_iterator{});
    ASSERT_EQ(folders, static_cast<int64_t>(bank->snapshot()->segments.size())) << "nothing stays behind";
  }
  EXPECT_GT(committed_under_way, 10) << "kills between the commit and its acknowledgement happen too";
  EXPECT_LT(committed_under_way, 900);
}

enum class AfterFault { kGoOn, kEnd, kDiskIsGone };

/// One run of random edits under a plan. Returns the states that the bank may be in.
std::vector<Contents> edit_under_faults(const fs::path& folder, unsigned seed, AfterFault after) {
  std::mt19937 random(seed);
  std::vector<Contents> possible{{}};
  std::unique_ptr<Bank> bank;
  for (int attempt = 0; attempt < 2 && bank == nullptr; ++attempt) {
    try {
      bank = Bank::create_or_open(folder, small_shape(), BankMode::kWrite);
    } catch (const Error&) {  // the fault hit the creation; the second one meets a sound disk again
    }
  }
  if (bank == nullptr) return possible;
  Contents contents;
  for (int i = 0; i < 9; ++i) {
    const Edit edit(*bank, contents, random);
    try {
      edit.make(*bank);
      contents = edit.after();
      possible = {contents};
    } catch (const Error&) {
      EXPECT_EQ(hash_of(contents_of(*bank)), hash_of(contents)) << "a failed edit changes nothing";
      if (after == AfterFault::kEnd) return possible;
      if (after == AfterFault::kDiskIsGone) {
        possible.push_back(edit.after());  // whether the commit holds shows when the disk comes back
        return possible;
      }
    }
  }
  return possible;
}

TEST_F(CrashTest, EveryFailingOperationLeavesWhatWasAcknowledged) {
  constexpr unsigned kSeed = 5;
  testing::watch_files(root_, {});
  edit_under_faults(folder_, kSeed, AfterFault::kGoOn);
  const int64_t operations = testing::unwatch_files();
  ASSERT_GT(operations, 150);
  for (int64_t n = 0; n < operations; ++n) {
    for (const AfterFault after : {AfterFault::kEnd, n % 2 == 0 ? AfterFault::kGoOn : AfterFault::kDiskIsGone}) {
      const int error = (n / 2 + static_cast<int>(after)) % 2 == 0 ? ENOSPC : EIO;
      const auto kind = after == AfterFault::kDiskIsGone ? FaultPlan::Kind::kFailFromThen : FaultPlan::Kind::kFail;
      fs::remove_all(folder_);
      testing::watch_files(root_, {kind, n, error, n % 3 == 0 ? 0.5 : 0.0});
      const std::vector<Contents> possible = edit_under_faults(folder_, kSeed, after);
      testing::unwatch_files();
      const auto bank = open(folder_);
      ASSERT_THAT(bank->verify(), IsEmpty()) << "operation " << n << ", then " << static_cast<int>(after);
      const uint64_t found = hash_of(contents_of(*bank));
      ASSERT_TRUE(std::any_of(possible.begin(), possible.end(), [&](const auto& c) { return hash_of(c) == found; }))
          << "operation " << n << ", then " << static_cast<int>(after) << ": " << possible.size() << " are possible";
    }
  }
}

/// One document of as many chunks as any other, so that their segments merge when there are eight.
testing::Batch one_document(Bank& bank, std::mt19937& random) {
  testing::Batch batch = random_batch(bank, 1, random);
  batch.documents[0] = testing::random_document(bank.shape(), 9, random);
  return batch;
}

/// Adds the document that makes small segments merge. Returns true when that was acknowledged.
bool add_one(const fs::path& folder) {
  std::mt19937 random(9);
  try {
    const auto bank = Bank::create_or_open(folder, small_shape(), BankMode::kWrite);
    return testing::add(*bank, one_document(*bank, random)).committed();
  } catch (const Error&) {
    return false;
  }
}

TEST_F(CrashTest, EveryFailingOperationOfAMergeLeavesWhatWasAcknowledged) {
  const fs::path prepared = root_ / "prepared";
  testing::watch_files(root_, {});  // no waiting for the disk
  {
    std::mt19937 random(8);
    const auto bank = open(prepared);
    for (int i = 0; i < 7; ++i) ASSERT_TRUE(testing::add(*bank, one_document(*bank, random)).committed());
    ASSERT_TRUE(bank->remove(3));
  }
  testing::unwatch_files();
  const auto start_over = [&] {
    fs::remove_all(folder_);
    fs::copy(prepared, folder_, fs::copy_options::recursive);
  };
  start_over();
  const uint64_t before = hash_of(contents_of(*open(folder_)));
  testing::watch_files(root_, {});
  ASSERT_TRUE(add_one(folder_));
  const int64_t operations = testing::unwatch_files();
  const auto merged = open(folder_);
  ASSERT_EQ(merged->snapshot()->segments.size(), 1u);
  const uint64_t after = hash_of(contents_of(*merged));
  int refused = 0, acknowledged = 0;
  for (int64_t n = 0; n < operations; ++n) {
    for (const int error : {ENOSPC, EIO}) {
      for (const auto kind : {FaultPlan::Kind::kFail, FaultPlan::Kind::kFailFromThen}) {
        start_over();
        testing::watch_files(root_, {kind, n, error, n % 3 == 0 ? 0.5 : 0.0});
        const bool added = add_one(folder_);
        testing::unwatch_files();
        const auto bank = open(folder_);
        ASSERT_THAT(bank->verify(), IsEmpty()) << "operation " << n;
        const uint64_t found = hash_of(contents_of(*bank));
        const bool unknown = !added && kind == FaultPlan::Kind::kFailFromThen;
        ASSERT_THAT(found, AnyOf(added ? after : before, added || unknown ? after : before)) << "operation " << n;
        (added ? acknowledged : refused) += 1;
        const auto folders = std::distance(fs::directory_iterator(folder_ / "segments"), fs::directory_iterator{});
        ASSERT_EQ(folders, static_cast<int64_t>(bank->snapshot()->segments.size())) << "nothing stays behind";
      }
    }
  }
  EXPECT_GT(refused, 20);
  EXPECT_GT(acknowledged, 20) << "a merge that fails does not undo the addition before it";
}

TEST_F(CrashTest, APowerLossAtAnyInstantLosesNothing) {
  constexpr unsigned kSeed = 77;
  RecordProperty("seed", kSeed);
  std::mt19937 random(kSeed);
  std::vector<uint64_t> states{hash_of({})};  // after each mark
  testing::watch_files(root_, {}, /*record=*/true);
  {
    const auto bank = open(folder_);
    testing::mark_operation(0);
    Contents contents;
    for (int i = 1; i <= 14; ++i) {
      const Edit edit(*bank, contents, random);
      edit.make(*bank);
      testing::mark_operation(i);
      contents = edit.after();
      states.push_back(hash_of(contents));
    }
  }
  testing::unwatch_files();
  const std::vector<testing::FileOperation> operations = testing::recorded_operations();
  ASSERT_GT(operations.size(), 150u);
  int different = 0;
  for (int i = 0; i < 1000; ++i) {
    const size_t count = random() % (operations.size() + 1);
    size_t acknowledged = 0;
    for (size_t o = 0; o < count; ++o) {
      if (operations[o].kind == testing::FileOperation::Kind::kMark) {
        acknowledged = static_cast<size_t>(operations[o].mark);
      }
    }
    testing::power_loss(root_, operations, count, random, root_ / "after");
    const auto bank = open(root_ / "after" / "bank");
    ASSERT_THAT(bank->verify(), IsEmpty()) << "seed " << kSeed << " loss " << i << " after operation " << count;
    const uint64_t found = hash_of(contents_of(*bank));
    const uint64_t next = states[std::min(acknowledged + 1, states.size() - 1)];
    ASSERT_THAT(found, AnyOf(states[acknowledged], next))
        << "seed " << kSeed << " loss " << i << " after operation " << count << " of " << operations.size();
    different += found != states[acknowledged];
  }
  EXPECT_GT(different, 0) << "some commits were complete but not yet acknowledged";
}

}  // namespace
}  // namespace msa
