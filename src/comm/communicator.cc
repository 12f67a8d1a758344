#include "comm/communicator.h"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "comm/local_communicator.h"
#include "core/error.h"
#ifdef MSA_WITH_MPI
#include "comm/mpi_communicator.h"
#endif

namespace msa {
namespace {

/// Ranks of this run as the launcher tells them to every process; 1 without a launcher.
int launched_size() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* text = std::getenv(variable);
    if (text == nullptr) continue;
    int size = 0;
    const char* end = text + std::strlen(text);
    const auto [parsed, error] = std::from_chars(text, end, size);
    if (error != std::errc() || parsed != end || size < 1) {
      throw Error("\"" + std::string(text) + "\" is no number of ranks", variable,
                  "unset it, or start the program with mpirun");
    }
    return size;
  }
  return 1;
}

}  // namespace

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
