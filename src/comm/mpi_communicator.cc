#include "comm/mpi_communicator.h"

#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <limits>
#include <string>
#include <thread>

#include "comm/mpi_start.h"
#include "comm/rank_order_sum.h"
#include "core/error.h"

namespace msa {
namespace {

using Clock = std::chrono::steady_clock;

/// Below this sum of all ranks' vectors, one exchange of everything beats two exchanges of shares.
constexpr size_t kGatherSumBytes = size_t{32} << 10;
/// A rank that waits this long yields its processor to the ranks at work beside it: it looks again every kNap.
constexpr auto kEagerWait = std::chrono::milliseconds(5);
constexpr auto kNap = std::chrono::microseconds(50);

constexpr uint64_t kStillHere = std::numeric_limits<uint64_t>::max();

/// n things over n_parts, as evenly as goes: counts and first indices for MPI's …v operations.
struct Shares {
  Shares(size_t n, size_t n_parts) {
    for (size_t part = 0, begin = 0; part < n_parts; ++part) {
      const size_t count = n / n_parts + (part < n % n_parts ? 1 : 0);
      counts.push_back(static_cast<int>(count));
      begins.push_back(static_cast<int>(begin));
      begin += count;
    }
  }
  std::vector<int> counts;  // [n_parts]
  std::vector<int> begins;  // [n_parts]
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(int expected_size, const CommunicatorOptions& options);
  ~MpiCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void all_reduce_sum(float* data, size_t n) override;
  void broadcast(void* data, size_t bytes, int root) override;
  void barrier() override;
  std::vector<std::vector<std::byte>> all_gather(const void* data, size_t bytes) override;

 private:
  /// data [n], n <= piece_floats_.
  void sum_piece(float* data, size_t n, const char* operation);
  /// Adds up summands_ [n_ranks][n] → sum [n].
  void sum_gathered(size_t n, float* sum);
  /// Begins an operation through `start(MPI_Request*)` and waits for its end.
  template <class Start>
  void complete(const char* operation, const Start& start);
  /// Throws when a rank has left that this operation needs.
  void look_for_leavers(const char* operation);
  /// Takes in what leaving ranks have told.
  void hear_farewells();
  void check(int status, const char* operation);
  [[noreturn]] void fail(const std::string& what, const char* operation, const std::string& fix);

  const std::chrono::milliseconds timeout_;
  const int exceptions_at_birth_ = std::uncaught_exceptions();
  size_t piece_bytes_;
  size_t piece_floats_;
  int rank_ = 0;
  int size_ = 1;
  bool broken_ = false;
  uint64_t operations_ = 0;           // begun by this rank; the same ones have the same number on all ranks
  std::vector<uint64_t> left_after_;  // [n_ranks] operations of a rank that has left, kStillHere of the others
  MPI_Comm farewells_ = MPI_COMM_NULL;
  std::vector<float> summands_;      // [n_ranks][share]
  std::vector<std::byte> gathered_;  // [n_ranks][share], of all_gather
};

MpiCommunicator::MpiCommunicator(int expected_size, const CommunicatorOptions& options)
    : timeout_(options.timeout), piece_bytes_(options.piece_bytes), piece_floats_(options.piece_bytes / sizeof(float)) {
  MSA_CHECK(piece_floats_ >= 1 && piece_bytes_ <= size_t{1} << 30);
  const MpiPlace place = start_mpi(expected_size);
  rank_ = place.rank;
  size_ = place.size;
  left_after_.assign(static_cast<size_t>(size_), kStillHere);
  MPI_Comm_dup(MPI_COMM_WORLD, &farewells_);
}

MpiCommunicator::~MpiCommunicator() {
  if (broken_ || std::uncaught_exceptions() > exceptions_at_birth_) return;
  left_after_[static_cast<size_t>(rank_)] = operations_;
  std::vector<MPI_Request> requests(static_cast<size_t>(size_), MPI_REQUEST_NULL);
  for (int r = 0; r < size_; ++r) {
    if (r != rank_) MPI_Isend(&operations_, 1, MPI_UINT64_T, r, 0, farewells_, &requests[static_cast<size_t>(r)]);
  }
  MPI_Waitall(size_, requests.data(), MPI_STATUSES_IGNORE);
  // No timeout: another rank may rightly work on alone, and if it fails, the launcher ends this one.
  for (hear_farewells(); std::ranges::count(left_after_, kStillHere) > 0; hear_farewells()) {
    std::this_thread::sleep_for(kNap);
  }
  MPI_Comm_free(&farewells_);
  MPI_Finalize();
}

void MpiCommunicator::hear_farewells() {
  for (;;) {
    int there = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, 0, farewells_, &there, &status) != MPI_SUCCESS || !there) return;
    MPI_Recv(&left_after_[static_cast<size_t>(status.MPI_SOURCE)], 1, MPI_UINT64_T, status.MPI_SOURCE, 0, farewells_,
             MPI_STATUS_IGNORE);
  }
}

void MpiCommunicator::look_for_leavers(const char* operation) {
  hear_farewells();
  for (int r = 0; r < size_; ++r) {
    if (left_after_[static_cast<size_t>(r)] >= operations_) continue;
    fail("rank " + std::to_string(r) + " has left the group", operation,
         "run every rank with the same options on the same data");
  }
}

void MpiCommunicator::fail(const std::string& what, const char* operation, const std::string& fix) {
  broken_ = true;
  const std::string where = "rank " + std::to_string(rank_) + " of " + std::to_string(size_) + " in " + operation;
  throw Error(what, where, fix);
}

void MpiCommunicator::check(int status, const char* operation) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail("MPI reports " + std::string(text, static_cast<size_t>(length)), operation,
       "look at what the other ranks report");
}

template <class Start>
void MpiCommunicator::complete(const char* operation, const Start& start) {
  if (broken_) fail("an earlier operation has failed", operation, "end this rank");
  ++operations_;
  MPI_Request request = MPI_REQUEST_NULL;
  check(start(&request), operation);
  const auto begin = Clock::now();
  for (int done = 0;;) {
    check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), operation);
    if (done) return;
    const auto waited = Clock::now() - begin;
    if (waited > timeout_) {
      fail("the other ranks did not come within " + std::to_string(timeout_.count()) + " ms", operation,
           "look at what the other ranks report or wait for");
    }
    if (waited > kEagerWait) {
      look_for_leavers(operation);
      std::this_thread::sleep_for(kNap);
    } else {
      std::this_thread::yield();
    }
  }
}

void MpiCommunicator::barrier() {
  complete("barrier", [](MPI_Request* request) { return MPI_Ibarrier(MPI_COMM_WORLD, request); });
}

void MpiCommunicator::broadcast(void* data, size_t bytes, int root) {
  MSA_CHECK(root >= 0 && root < size_);
  for (size_t begin = 0; begin < bytes; begin += piece_bytes_) {
    const int count = static_cast<int>(std::min(piece_bytes_, bytes - begin));
    complete("broadcast", [&](MPI_Request* request) {
      return MPI_Ibcast(static_cast<char*>(data) + begin, count, MPI_BYTE, root, MPI_COMM_WORLD, request);
    });
  }
}

void MpiCommunicator::all_reduce_sum(float* data, size_t n) {
  for (size_t begin = 0; begin < n; begin += piece_floats_) {
    sum_piece(data + begin, std::min(piece_floats_, n - begin), "all_reduce_sum");
  }
}

// MPI_Allreduce leaves the order of summation to the implementation, its settings and the message's size. Exchanging
// shares and summing them here moves the same bytes as its ring algorithm.
void MpiCommunicator::sum_piece(float* data, size_t n, const char* operation) {
  const size_t ranks = static_cast<size_t>(size_);
  if (n * ranks * sizeof(float) <= kGatherSumBytes) {
    summands_.resize(n * ranks);
    const int count = static_cast<int>(n);
    complete(operation, [&](MPI_Request* request) {
      return MPI_Iallgather(data, count, MPI_FLOAT, summands_.data(), count, MPI_FLOAT, MPI_COMM_WORLD, request);
    });
    sum_gathered(n, data);
    return;
  }
  const Shares shares(n, ranks);
  const int mine = shares.counts[static_cast<size_t>(rank_)], begin = shares.begins[static_cast<size_t>(rank_)];
  const std::vector<int> counts(ranks, mine);
  std::vector<int> begins;  // of summands_, [n_ranks][mine]
  for (int r = 0; r < size_; ++r) begins.push_back(r * mine);
  summands_.resize(static_cast<size_t>(mine) * ranks);
  complete(operation, [&](MPI_Request* request) {
    return MPI_Ialltoallv(data, shares.counts.data(), shares.begins.data(), MPI_FLOAT, summands_.data(), counts.data(),
                          begins.data(), MPI_FLOAT, MPI_COMM_WORLD, request);
  });
  sum_gathered(static_cast<size_t>(mine), data + begin);
  complete(operation, [&](MPI_Request* request) {
    return MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, shares.counts.data(), shares.begins.data(),
                           MPI_FLOAT, MPI_COMM_WORLD, request);
  });
}

void MpiCommunicator::sum_gathered(size_t n, float* sum) {
  std::vector<const float*> summands(static_cast<size_t>(size_));
  for (size_t begin = 0; begin < n; begin += kRankSumFloats) {
    for (size_t r = 0; r < summands.size(); ++r) summands[r] = summands_.data() + r * n + begin;
    sum_in_rank_order(summands, std::min(kRankSumFloats, n - begin), sum + begin);
  }
}

std::vector<std::vector<std::byte>> MpiCommunicator::all_gather(const void* data, size_t bytes) {
  const size_t ranks = static_cast<size_t>(size_);
  const uint64_t my_size = bytes;
  std::vector<uint64_t> sizes(ranks);
  complete("all_gather", [&](MPI_Request* request) {
    return MPI_Iallgather(&my_size, 1, MPI_UINT64_T, sizes.data(), 1, MPI_UINT64_T, MPI_COMM_WORLD, request);
  });
  std::vector<std::vector<std::byte>> blocks;
  for (const uint64_t size : sizes) blocks.emplace_back(size);
  const size_t share = std::max<size_t>(piece_bytes_ / ranks, 1);
  const size_t longest = *std::max_element(sizes.begin(), sizes.end());
  for (size_t begin = 0; begin < longest; begin += share) {
    std::vector<int> counts, begins;  // [n_ranks], of gathered_
    int total = 0;
    for (const uint64_t size : sizes) {
      counts.push_back(static_cast<int>(std::min<uint64_t>(share, size > begin ? size - begin : 0)));
      begins.push_back(total);
      total += counts.back();
    }
    gathered_.resize(static_cast<size_t>(total));
    const int my_count = counts[static_cast<size_t>(rank_)];
    complete("all_gather", [&](MPI_Request* request) {
      return MPI_Iallgatherv(my_count > 0 ? static_cast<const char*>(data) + begin : nullptr, my_count, MPI_BYTE,
                             gathered_.data(), counts.data(), begins.data(), MPI_BYTE, MPI_COMM_WORLD, request);
    });
    for (size_t r = 0; r < ranks; ++r) {
      if (counts[r] > 0) {
        std::memcpy(blocks[r].data() + begin, gathered_.data() + begins[r], static_cast<size_t>(counts[r]));
      }
    }
  }
  return blocks;
}

}  // namespace

std::unique_ptr<Communicator> mpi_communicator(int expected_size, const CommunicatorOptions& options) {
  return std::make_unique<MpiCommunicator>(expected_size, options);
}

}  // namespace msa
