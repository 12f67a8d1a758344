#include "comm/communicator.h"

#include "comm/launcher.h"
#include "comm/local_communicator.h"
#include "core/error.h"
#ifdef MSA_WITH_MPI
#include "comm/mpi_communicator.h"
#endif

namespace msa {
std::unique_ptr<Communicator> communicator_from_environment([[maybe_unused]] const CommunicatorOptions& options) {
  const int size = launched_size();
  if (size == 1) return std::make_unique<LocalCommunicator>();
#ifdef MSA_WITH_MPI
  return mpi_communicator(size, options);
#else
  throw Error("this program was built without MPI", "a run of " + std::to_string(size) + " ranks",
              "install libopenmpi-dev and build again, or start it without mpirun");
#endif
}

}  // namespace msa
