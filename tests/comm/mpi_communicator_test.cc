// A program for mpirun: mpi_communicator_test MODE. Exit 0 when this rank saw what the mode expects. The modes that
// break the group are run and judged by mpi_communicator_test.py.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "collective_checks.h"
#include "core/error.h"

namespace msa {
namespace {

using namespace std::chrono_literals;

/// Nothing to catch a failed EXPECT outside of a TEST but the state that it leaves.
bool expectations_hold() { return !testing::Test::HasFailure(); }

int run_mode(const std::string& mode) {
  CommunicatorOptions options;
  options.timeout = mode == "hang" ? std::chrono::milliseconds(500) : std::chrono::milliseconds(60'000);
  if (mode == "pieces") options.piece_bytes = 4096;
  if (mode == "one-byte-shares") options.piece_bytes = 4;
  const auto comm = communicator_from_environment(options);
  if (mode == "promises" || mode == "pieces") {
    collective_checks::keeps_all_promises(*comm, 1);
    return expectations_hold() ? 0 : 1;
  }
  if (mode == "one-byte-shares") {
    collective_checks::keeps_step(*comm, 2);
    return expectations_hold() ? 0 : 1;
  }
  float x = 1;
  comm->all_reduce_sum(&x, 1);
  const bool culprit = comm->rank() == 1;
  if (mode == "throw" && culprit) throw Error("disk full", "rank 1");
  if (mode == "leave" && culprit) return 3;
  if (mode == "kill" && culprit) std::abort();
  if (mode == "hang" && culprit) std::this_thread::sleep_for(1h);
  comm->barrier();
  return 0;
}

}  // namespace
}  // namespace msa

int main(int n_arguments, char** arguments) {
  testing::InitGoogleTest(&n_arguments, arguments);
  try {
    return msa::run_mode(n_arguments > 1 ? arguments[1] : "promises");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
