// The end of a run over several ranks whose rank 0 has failed.
#pragma once

namespace msa {

/// Of rank 0, with its error printed: ends the other processes, which a launcher that lets survivors go on (mpirun
/// --enable-recovery) would leave waiting for it, and this one, with exit code 1. Returns where MPI is not at work.
void end_failed_run();

}  // namespace msa
