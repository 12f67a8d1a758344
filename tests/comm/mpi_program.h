// What the programs that mpi_test.py starts under mpirun have in common: PROGRAM MODE, exit 0 when this rank saw what
// the mode expects. The modes that break the group are judged by mpi_test.py.
#pragma once
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <thread>

namespace msa::mpi_program {

/// Nothing catches a failed EXPECT outside of a TEST but the state that it leaves.
inline int expectations() { return testing::Test::HasFailure() ? 1 : 0; }

/// Far longer than mpi_test.py waits.
inline void hang() { std::this_thread::sleep_for(std::chrono::hours(1)); }

inline int run(int n_arguments, char** arguments, int (*run_mode)(const std::string& mode)) {
  testing::InitGoogleTest(&n_arguments, arguments);
  try {
    return run_mode(n_arguments > 1 ? arguments[1] : "promises");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}

}  // namespace msa::mpi_program
