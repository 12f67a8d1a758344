// MPI begun, for whichever class of this folder uses it.
#pragma once

namespace msa {

struct MpiPlace {
  int rank = 0;
  int size = 1;
};

/// MPI_Init: any thread may communicate, one at a time; errors come back as values. Throws Error where the launcher
/// belongs to another MPI, or this one does not allow threads. Once in a process.
MpiPlace start_mpi(int expected_size);

}  // namespace msa
