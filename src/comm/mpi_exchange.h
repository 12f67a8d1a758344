// Ranks that are processes under MPI.
#pragma once
#include "comm/exchange.h"

namespace msa {

/// Starts MPI; destroying the exchange ends it. Where a rank was given up, that ends all processes of the run, this one
/// included, with exit code 0. With an exception in flight it does nothing: the process is to end as failed.
std::unique_ptr<Exchange> mpi_exchange(int expected_size);

}  // namespace msa
