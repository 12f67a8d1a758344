#include "comm/thread_communicator.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include "comm/rank_order_sum.h"
#include "core/error.h"

namespace msa {
namespace {

enum class Operation { kAllReduceSum, kBroadcast, kBarrier, kAllGather };

constexpr const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::kAllReduceSum: return "all_reduce_sum";
    case Operation::kBroadcast: return "broadcast";
    case Operation::kBarrier: return "barrier";
    case Operation::kAllGather: return "all_gather";
  }
  return "?";
}

/// What a rank brings to an operation. The group reads and writes `data` between meet() and part() only.
struct Call {
  Operation operation = Operation::kBarrier;
  void* data = nullptr;  // [bytes]
  size_t bytes = 0;
  int root = 0;
};

bool same_call(const Call& a, const Call& b) {
  if (a.operation != b.operation || a.root != b.root) return false;
  return a.bytes == b.bytes || a.operation == Operation::kAllGather;
}

std::string describe(const Call& call) {
  std::string text = name_of(call.operation);
  if (call.operation == Operation::kBarrier) return text;
  text += " of " + std::to_string(call.bytes) + " bytes";
  if (call.operation == Operation::kBroadcast) text += " from rank " + std::to_string(call.root);
  return text;
}

/// The meeting point. An operation is: meet() until all have brought their calls; work on everybody's memory; part()
/// when all are done with it.
class Group {
 public:
  Group(int size, std::chrono::milliseconds timeout) : timeout_(timeout), calls_(static_cast<size_t>(size)) {}

  int size() const { return static_cast<int>(calls_.size()); }

  /// The calls of all ranks, valid until part(). A rank for which this returned must call part().
  const std::vector<Call>& meet(int rank, const Call& call) {
    std::unique_lock lock(mutex_);
    if (!broken_.empty()) throw_broken(rank, call);
    calls_[static_cast<size_t>(rank)] = call;
    const uint64_t meeting = meetings_;
    if (++present_ == size()) {
      ++meetings_;
      changed_.notify_all();
      return calls_;
    }
    const auto met = [&] { return meetings_ != meeting; };
    const bool in_time = changed_.wait_for(lock, timeout_, [&] { return met() || !broken_.empty(); });
    if (met()) return calls_;
    if (!in_time) {
      break_group(std::to_string(size() - present_) + " of " + std::to_string(size()) + " ranks did not come within " +
                  std::to_string(timeout_.count()) + " ms");
    }
    throw_broken(rank, call);
  }

  /// No timeout, and no way out when the group breaks: the others may be at work on this rank's memory.
  void part() noexcept {
    std::unique_lock lock(mutex_);
    const uint64_t parting = partings_;
    if (--present_ == 0) {
      ++partings_;
      changed_.notify_all();
    } else {
      changed_.wait(lock, [&] { return partings_ != parting; });
    }
  }

  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    break_group("rank " + std::to_string(rank) + " has left the group");
  }

 private:
  void break_group(const std::string& why) {
    if (broken_.empty()) broken_ = why;
    changed_.notify_all();
  }

  [[noreturn]] void throw_broken(int rank, const Call& call) const {
    throw Error(broken_, "rank " + std::to_string(rank) + " in " + describe(call),
                "the other ranks' errors name the cause");
  }

  const std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Call> calls_;  // [size], by rank
  int present_ = 0;          // ranks between meet() and part()
  uint64_t meetings_ = 0;
  uint64_t partings_ = 0;
  std::string broken_;  // why, once it is
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Group> group, int rank) : group_(std::move(group)), rank_(rank) {}
  ~ThreadCommunicator() override { group_->leave(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  void all_reduce_sum(float* data, size_t n) override {
    const Meeting meeting(*this, {Operation::kAllReduceSum, data, n * sizeof(float)});
    std::vector<const float*> summands;
    // This rank sums its share of the elements for everybody; nobody else touches that share.
    const size_t ranks = meeting.calls.size(), mine = static_cast<size_t>(rank_);
    const size_t end = n / ranks * (mine + 1) + std::min(n % ranks, mine + 1);
    std::array<float, kRankSumFloats> sum;
    for (size_t begin = n / ranks * mine + std::min(n % ranks, mine); begin < end; begin += kRankSumFloats) {
      const size_t count = std::min(kRankSumFloats, end - begin);
      summands.clear();
      for (const Call& call : meeting.calls) summands.push_back(static_cast<const float*>(call.data) + begin);
      sum_in_rank_order(summands, count, sum.data());
      for (const Call& call : meeting.calls) std::copy_n(sum.data(), count, static_cast<float*>(call.data) + begin);
    }
  }

  void broadcast(void* data, size_t bytes, int root) override {
    MSA_CHECK(root >= 0 && root < size());
    const Meeting meeting(*this, {Operation::kBroadcast, data, bytes, root});
    if (rank_ != root && bytes > 0) std::memcpy(data, meeting.calls[static_cast<size_t>(root)].data, bytes);
  }

  void barrier() override { const Meeting meeting(*this, {Operation::kBarrier}); }

  std::vector<std::vector<std::byte>> all_gather(const void* data, size_t bytes) override {
    const Meeting meeting(*this, {Operation::kAllGather, const_cast<void*>(data), bytes});
    std::vector<std::vector<std::byte>> blocks;
    for (const Call& call : meeting.calls) {
      const auto* begin = static_cast<const std::byte*>(call.data);
      blocks.emplace_back(begin, begin + call.bytes);
    }
    return blocks;
  }

 private:
  /// The stretch in which everybody's memory is open to all.
  struct Meeting {
    Meeting(ThreadCommunicator& self, const Call& call) : group(*self.group_), calls(group.meet(self.rank_, call)) {
      for (size_t other = 0; other < calls.size(); ++other) {
        if (same_call(call, calls[other])) continue;
        const Call theirs = calls[other];
        group.part();
        throw Error("rank " + std::to_string(other) + " called " + describe(theirs),
                    "rank " + std::to_string(self.rank_) + " in " + describe(call),
                    "run every rank with the same options on the same data");
      }
    }
    ~Meeting() { group.part(); }
    Meeting(const Meeting&) = delete;
    Meeting& operator=(const Meeting&) = delete;

    Group& group;
    const std::vector<Call>& calls;  // [size], by rank
  };

  std::shared_ptr<Group> group_;
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> thread_communicators(int size, const CommunicatorOptions& options) {
  MSA_CHECK(size >= 1);
  const auto group = std::make_shared<Group>(size, options.timeout);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < size; ++rank) communicators.push_back(std::make_unique<ThreadCommunicator>(group, rank));
  return communicators;
}

void run_ranks(int size, const std::function<void(Communicator&)>& body, const CommunicatorOptions& options) {
  auto communicators = thread_communicators(size, options);
  std::mutex mutex;
  std::exception_ptr first;
  const auto run = [&](std::unique_ptr<Communicator> communicator) {
    try {
      body(*communicator);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
    }
  };  // the communicator goes after its exception is on record, so the first one on record is the cause
  {
    std::vector<std::jthread> threads;
    for (auto& communicator : communicators) threads.emplace_back(run, std::move(communicator));
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace msa
