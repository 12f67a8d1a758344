#include "comm/exchange.h"

#include "comm/launcher.h"
#include "core/error.h"
#ifdef MSA_WITH_MPI
#include "comm/mpi_exchange.h"
#endif

namespace msa {

std::unique_ptr<Exchange> exchange_from_environment() {
  const int size = launched_size();
  if (size == 1) return nullptr;
#ifdef MSA_WITH_MPI
  return mpi_exchange(size);
#else
  throw Error("this program was built without MPI", "a run of " + std::to_string(size) + " ranks",
              "install libopenmpi-dev and build again, or start it without mpirun");
#endif
}

}  // namespace msa
