// Under mpirun: collective operations between processes.
#include <chrono>
#include <cstdlib>
#include <string>

#include "collective_checks.h"
#include "core/error.h"
#include "mpi_program.h"

namespace msa {
namespace {

int run_mode(const std::string& mode) {
  CommunicatorOptions options;
  options.timeout = mode == "hang" ? std::chrono::milliseconds(500) : std::chrono::milliseconds(60'000);
  if (mode == "pieces") options.piece_bytes = 4096;
  if (mode == "one-byte-shares") options.piece_bytes = 4;
  const auto comm = communicator_from_environment(options);
  if (mode == "promises" || mode == "pieces") {
    collective_checks::keeps_all_promises(*comm, 1);
    return mpi_program::expectations();
  }
  if (mode == "one-byte-shares") {
    collective_checks::keeps_step(*comm, 2);
    return mpi_program::expectations();
  }
  float x = 1;
  comm->all_reduce_sum(&x, 1);
  const bool culprit = comm->rank() == 1;
  if (mode == "throw" && culprit) throw Error("disk full", "rank 1");
  if (mode == "leave" && culprit) return 3;
  if (mode == "kill" && culprit) std::abort();
  if (mode == "hang" && culprit) mpi_program::hang();
  comm->barrier();
  return 0;
}

}  // namespace
}  // namespace msa

int main(int n_arguments, char** arguments) { return msa::mpi_program::run(n_arguments, arguments, msa::run_mode); }
