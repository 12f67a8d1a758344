#include "comm/mpi_exchange.h"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <list>
#include <set>
#include <thread>
#include <utility>

#include "comm/mpi_start.h"
#include "core/error.h"

namespace msa {
namespace {

/// A message of up to this size is one message of MPI, below the limit at which Open MPI's shared-memory and TCP
/// transports stop sending at once and ask the receiver first.
constexpr size_t kEnvelopeBytes = 4096 - 64;
constexpr size_t kPieceBytes = size_t{64} << 20;  // of the rest: keeps MPI's counts in int
/// How long send() stays with a message that the receiver has to take, and receive() looks without a pause.
constexpr auto kEagerWait = std::chrono::milliseconds(5);
/// For ranks that are at work on a last request while the others leave.
constexpr auto kLastWait = std::chrono::minutes(1);
constexpr auto kNap = std::chrono::microseconds(50);

struct Sizes {
  uint64_t head = 0, body = 0;
  size_t total() const { return sizeof(Sizes) + head + body; }
};

/// A message on its way to some ranks: its bytes, and the parts of MPI's that have not arrived.
struct Outgoing {
  std::vector<std::byte> bytes;  // Sizes, head, body
  std::vector<MPI_Request> requests;
};

/// A message on its way to this rank.
struct Incoming {
  std::array<std::byte, kEnvelopeBytes> envelope;
  std::vector<std::byte> rest;
};

class MpiExchange final : public Exchange {
 public:
  explicit MpiExchange(int expected_size) : place_(start_mpi(expected_size)) {}
  ~MpiExchange() override;

  int rank() const override { return place_.rank; }
  int size() const override { return place_.size; }
  void send(const std::vector<int>& to, const Message& message) override;
  std::string receive(int from, Clock::time_point deadline, Message& message) override;
  void give_up(int rank) override { given_up_.insert(rank); }

 private:
  /// Waits for all ranks to be here, but not for ever.
  bool all_are_done();
  /// Forgets what has arrived. False while something is on its way.
  bool all_arrived();
  std::string receive_piece(int from, Clock::time_point deadline, std::byte* to, size_t bytes,
                            size_t* received = nullptr);
  std::string receive_all(int from, Clock::time_point deadline, Incoming& incoming, Sizes& sizes);

  const MpiPlace place_;
  const int exceptions_at_birth_ = std::uncaught_exceptions();
  std::list<Outgoing> outgoing_;
  std::list<std::unique_ptr<Incoming>> abandoned_;  // of ranks that stopped halfway: MPI may still write into them
  std::set<int> given_up_;
};

/// "" for MPI_SUCCESS.
std::string problem_of(int status) {
  if (status == MPI_SUCCESS) return {};
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  return "MPI reports " + std::string(text, static_cast<size_t>(length));
}

MpiExchange::~MpiExchange() {
  // MPI_Finalize waits for all ranks, for a lost one without end. With an Error on its way this process ends as failed,
  // and the launcher ends the others; where a rank is lost, all are ended from here, and the run has succeeded.
  if (std::uncaught_exceptions() > exceptions_at_birth_) return;
  if (given_up_.empty() && all_are_done()) {
    MPI_Finalize();
    return;
  }
  std::cout.flush();
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, 0);
}

bool MpiExchange::all_are_done() {
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Ibarrier(MPI_COMM_WORLD, &request) != MPI_SUCCESS) return false;
  for (const auto until = Clock::now() + kLastWait; Clock::now() < until; std::this_thread::sleep_for(kNap)) {
    int done = 0;
    if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
    if (all_arrived() && done != 0) return true;
  }
  return false;
}

bool MpiExchange::all_arrived() {
  outgoing_.remove_if([](Outgoing& one) {
    int done = 0;
    // A message that cannot be sent is none of the sender's: its receiver does not answer.
    const int status =
        MPI_Testall(static_cast<int>(one.requests.size()), one.requests.data(), &done, MPI_STATUSES_IGNORE);
    return status == MPI_SUCCESS && done != 0;
  });
  return outgoing_.empty();
}

void MpiExchange::send(const std::vector<int>& to, const Message& message) {
  const Sizes sizes{message.head.size(), message.body_bytes()};
  Outgoing& one = outgoing_.emplace_back();
  one.bytes.resize(sizes.total());
  std::memcpy(one.bytes.data(), &sizes, sizeof sizes);
  std::copy(message.head.begin(), message.head.end(), one.bytes.begin() + sizeof sizes);
  if (sizes.body > 0) std::memcpy(one.bytes.data() + sizeof sizes + sizes.head, message.body.data, sizes.body);
  for (const int rank : to) {
    MSA_CHECK(rank >= 0 && rank < place_.size && rank != place_.rank);
    for (size_t begin = 0, n = 0; begin < one.bytes.size(); begin += n) {
      n = std::min(begin == 0 ? kEnvelopeBytes : kPieceBytes, one.bytes.size() - begin);
      MPI_Isend(one.bytes.data() + begin, static_cast<int>(n), MPI_BYTE, rank, 0, MPI_COMM_WORLD,
                &one.requests.emplace_back(MPI_REQUEST_NULL));
    }
  }
  for (const auto until = Clock::now() + kEagerWait; !all_arrived() && Clock::now() < until;) std::this_thread::yield();
}

std::string MpiExchange::receive_piece(int from, Clock::time_point deadline, std::byte* to, size_t bytes,
                                       size_t* received) {
  MPI_Request request = MPI_REQUEST_NULL;
  const int begun = MPI_Irecv(to, static_cast<int>(bytes), MPI_BYTE, from, 0, MPI_COMM_WORLD, &request);
  if (begun != MPI_SUCCESS) return problem_of(begun);
  const auto start = Clock::now();
  for (MPI_Status status;;) {
    int done = 0;
    const int tested = MPI_Test(&request, &done, &status);
    if (tested != MPI_SUCCESS) return problem_of(tested);
    if (done != 0) {
      int count = 0;
      MPI_Get_count(&status, MPI_BYTE, &count);
      if (received != nullptr) *received = static_cast<size_t>(count);
      return {};
    }
    const auto now = Clock::now();
    if (now >= deadline) {
      MPI_Cancel(&request);
      MPI_Request_free(&request);
      return "it did not answer in time";
    }
    all_arrived();
    if (now - start < kEagerWait) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kNap);
    }
  }
}

std::string MpiExchange::receive_all(int from, Clock::time_point deadline, Incoming& incoming, Sizes& sizes) {
  size_t received = 0;
  std::string problem = receive_piece(from, deadline, incoming.envelope.data(), incoming.envelope.size(), &received);
  if (!problem.empty()) return problem;
  MSA_CHECK(received >= sizeof sizes);
  std::memcpy(&sizes, incoming.envelope.data(), sizeof sizes);
  MSA_CHECK(received == std::min(sizes.total(), kEnvelopeBytes));
  incoming.rest.resize(sizes.total() - received);
  for (size_t begin = 0; begin < incoming.rest.size() && problem.empty(); begin += kPieceBytes) {
    const size_t n = std::min(kPieceBytes, incoming.rest.size() - begin);
    problem = receive_piece(from, deadline, incoming.rest.data() + begin, n);
  }
  return problem;
}

std::string MpiExchange::receive(int from, Clock::time_point deadline, Message& message) {
  MSA_CHECK(from >= 0 && from < place_.size && from != place_.rank);
  auto incoming = std::make_unique<Incoming>();
  Sizes sizes;
  std::string problem = receive_all(from, deadline, *incoming, sizes);
  if (!problem.empty()) {
    abandoned_.push_back(std::move(incoming));
    return problem;
  }
  const size_t here = std::min(sizes.total(), kEnvelopeBytes);  // bytes of the envelope; the others follow in `rest`
  const auto copy_out = [&](size_t begin, size_t bytes, std::byte* to) {
    const size_t first = begin < here ? std::min(bytes, here - begin) : 0;
    std::copy_n(incoming->envelope.data() + std::min(begin, here), first, to);
    if (first < bytes) std::copy_n(incoming->rest.data() + (begin + first - here), bytes - first, to + first);
  };
  message.head.resize(sizes.head);
  message.body = {};
  copy_out(sizeof sizes, sizes.head, message.head.data());
  if (sizes.body == 0) return {};
  message.body = message.memory.tensor(DType::kI8, {static_cast<int64_t>(sizes.body)});
  copy_out(sizeof sizes + sizes.head, sizes.body, message.body.as<std::byte>());
  return {};
}

}  // namespace

std::unique_ptr<Exchange> mpi_exchange(int expected_size) { return std::make_unique<MpiExchange>(expected_size); }

}  // namespace msa
