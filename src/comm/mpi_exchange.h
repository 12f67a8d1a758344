// Ranks that are processes under MPI.
#pragma once
#include "comm/exchange.h"

namespace msa {

/// Starts MPI; destroying the exchange ends it, unless a rank was given up: nothing may then wait for it, and the
/// process is to end without.
std::unique_ptr<Exchange> mpi_exchange(int expected_size);

}  // namespace msa
