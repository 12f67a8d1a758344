#include "comm/end_run.h"

#ifdef MSA_WITH_MPI
#include <mpi.h>
#endif

namespace msa {

void end_failed_run() {
#ifdef MSA_WITH_MPI
  int has_begun = 0, has_ended = 0;
  MPI_Initialized(&has_begun);
  MPI_Finalized(&has_ended);
  if (has_begun != 0 && has_ended == 0) MPI_Abort(MPI_COMM_WORLD, 1);
#endif
}

}  // namespace msa
