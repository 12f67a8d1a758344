#include "comm/mpi_start.h"

#include <mpi.h>

#include <string>

#include "core/error.h"

namespace msa {

MpiPlace start_mpi(int expected_size) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  MSA_CHECK(!initialized);
  // What fails in here, MPI itself reports, and it ends the process.
  int provided = MPI_THREAD_SINGLE;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MpiPlace place;
  MPI_Comm_rank(MPI_COMM_WORLD, &place.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &place.size);
  if (provided < MPI_THREAD_SERIALIZED) {
    MPI_Finalize();
    throw Error("this MPI does not let threads communicate", "MPI_Init_thread", "use an MPI built with thread support");
  }
  if (place.size != expected_size) {
    MPI_Finalize();
    throw Error(
        "the launcher announced " + std::to_string(expected_size) + " ranks, MPI found " + std::to_string(place.size),
        "MPI_Init_thread", "start the program with the mpirun of the MPI that it was built with");
  }
  return place;
}

}  // namespace msa
