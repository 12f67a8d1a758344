// A file layer that fails, kills or records: it stands in for the C library's file functions (write, fsync, rename, …)
// of the whole test program, SQLite's included, and acts on one folder's files only.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace msa::testing {

/// One change that a program asked of the disk.
struct FileOperation {
  enum class Kind { kWrite, kTruncate, kSync, kCreate, kRename, kUnlink, kMakeFolder, kSyncFolder, kMark };
  Kind kind = Kind::kMark;
  int64_t file = -1;   // a number for each file ever created
  std::string path;    // kCreate, kRename (from), kUnlink (folders too), kMakeFolder, kSyncFolder
  std::string target;  // kRename
  int64_t offset = 0;  // kWrite; kTruncate: the size
  std::string bytes;   // kWrite
  int mark = 0;        // kMark
};

struct FaultPlan {
  enum class Kind { kNone, kFail, kFailFromThen, kKill };
  Kind kind = Kind::kNone;
  int64_t at = 0;             // which operation, from 0
  int error = 0;              // errno of a failure
  double written_part = 0.0;  // of the failing or killed write
};

/// From now on operations below `folder` are counted and recorded, and meet the plan. Syncs are not passed on to the
/// disk: a kill loses nothing that was written, and power_loss() decides itself what is lost.
void watch_files(const std::filesystem::path& folder, const FaultPlan& plan, bool record = false);
/// Ends it; returns the number of operations since watch_files.
int64_t unwatch_files();
void mark_operation(int mark);
const std::vector<FileOperation>& recorded_operations();

/// Writes to `target` what a disk may hold when the power fails after the first `count` operations on `folder`:
/// everything that was synced, and of the rest what `random` picks, writes torn at sectors included.
void power_loss(const std::filesystem::path& folder, const std::vector<FileOperation>& operations, size_t count,
                std::mt19937& random, const std::filesystem::path& target);

}  // namespace msa::testing
