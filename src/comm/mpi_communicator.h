// Ranks that are processes, started by mpirun. Built only where MPI is.
#pragma once
#include "comm/communicator.h"

namespace msa {

/// All ranks of the run; initialises MPI, so at most once in a process. `expected_size` is what the launcher announced.
/// The destructor tells the others, waits until they have finished too, and finalises MPI. After an Error, or with an
/// exception in flight, it does nothing: the process is to end, and the launcher then ends the other ranks.
std::unique_ptr<Communicator> mpi_communicator(int expected_size, const CommunicatorOptions& options);

}  // namespace msa
