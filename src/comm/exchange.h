// Messages between one rank that drives and others that serve it. Unlike a Communicator's collectives, a rank that
// fails concerns only the one that waits for it: the others go on.
#pragma once
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/tensor.h"

namespace msa {

/// A few bytes that the receiver reads at once, and a block that goes where the receiver computes.
struct Message {
  std::vector<std::byte> head;  // host memory
  Tensor body;                  // I8 [bytes], dense, on Exchange::body_device(); empty: none
  Buffer memory;                // where a received body lies

  size_t body_bytes() const { return body.empty() ? 0 : static_cast<size_t>(body.bytes()); }
};

/// One rank's end of a group; one thread of a rank at a time. Messages of one rank to another arrive in order.
///
/// A backend implements the six functions below. One for GPUs can wrap a host backend: heads go through that, bodies
/// from GPU memory to GPU memory, since both ends know a body's size once the head is there; body_device() then names
/// the rank's GPU, and whoever fills a body or reads one does it on that device with core/copy.h, in the order of the
/// context that the backend was made with.
class Exchange {
 public:
  using Clock = std::chrono::steady_clock;

  virtual ~Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  virtual int rank() const = 0;  // 0 … size() - 1
  virtual int size() const = 0;  // >= 1
  /// Where bodies lie, sent and received ones.
  virtual Device body_device() const { return {}; }

  /// The same message to each of these ranks. Never waits long: the message may be reused when this returns, also where
  /// a receiver is slow or gone. That a rank is gone shows when its reply is waited for.
  virtual void send(const std::vector<int>& to, const Message& message) = 0;
  /// The next message of a rank, within the time. Returns why there is none; empty: it is there.
  [[nodiscard]] virtual std::string receive(int from, Clock::time_point deadline, Message& message) = 0;
  /// This rank never waits for that one again, nor at the end of the run.
  virtual void give_up(int rank) = 0;

 protected:
  Exchange() = default;
};

/// What mpirun asks for, as communicator_from_environment(): null for a run of one rank. Call it once in a process, and
/// no other function of comm that starts MPI beside it.
std::unique_ptr<Exchange> exchange_from_environment();

/// One end for each rank of a group of threads, by rank. Destroying one tells the others that the rank has left.
std::vector<std::unique_ptr<Exchange>> thread_exchanges(int size);

}  // namespace msa
