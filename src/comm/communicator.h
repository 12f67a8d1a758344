// Collective operations between the ranks of one run: one process, threads of one process, or processes under MPI.
#pragma once
#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

namespace msa {

struct CommunicatorOptions {
  /// How long a rank waits for the others inside one operation before it gives up with an Error. It must exceed the
  /// longest stretch of work that one rank does alone; half an hour is what PyTorch's process groups take.
  std::chrono::milliseconds timeout = std::chrono::minutes(30);
  /// MPI alone: larger transfers go in pieces of this size, which bounds scratch memory and keeps MPI's counts in int.
  size_t piece_bytes = size_t{16} << 20;
};

/// One rank's end of a group. All memory is host memory.
///
/// Every rank calls the same operations in the same order with the same sizes and roots, one thread of a rank at a
/// time. An operation returns when this rank's part is done and its arguments may be reused; only barrier() promises
/// that all ranks have arrived. Sizes may be 0, the pointer then null.
///
/// Errors: an operation throws Error when the group is broken: a rank left it (its communicator is gone, its process
/// has ended), a rank called something else, or the timeout passed. A group does not mend: after an Error, end the
/// rank. Under MPI the ranks that wait for it are ended by the launcher as soon as its process ends; calls that differ
/// between ranks show there as MPI's own error or as the timeout.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int rank() const = 0;  // 0 … size() - 1
  virtual int size() const = 0;  // >= 1

  /// data [n]: this rank's summand in, the sum over all ranks out, the same bits on each. Every element is summed in
  /// float32 in rank order, ((x_0 + x_1) + x_2) + …, so it depends on the summands alone: not on timing, n or backend.
  virtual void all_reduce_sum(float* data, size_t n) = 0;

  /// data [bytes]: read on `root`, written on the others.
  virtual void broadcast(void* data, size_t bytes, int root) = 0;

  virtual void barrier() = 0;

  /// Every rank's block, in rank order, on every rank. Here alone `bytes` may differ between ranks.
  virtual std::vector<std::vector<std::byte>> all_gather(const void* data, size_t bytes) = 0;

 protected:
  Communicator() = default;
};

/// What mpirun asks for in OMPI_COMM_WORLD_SIZE or PMI_SIZE: MPI when the run has more than one rank. Otherwise a group
/// of one, without a call into MPI. Call it once in a process. Throws Error when the program was built without MPI,
/// when the variables are malformed, and when the launcher belongs to another MPI than the program.
std::unique_ptr<Communicator> communicator_from_environment(const CommunicatorOptions& options = {});

}  // namespace msa
