// What the launcher of a run tells every process through its environment.
#pragma once

namespace msa {

/// Ranks of this run; 1 without a launcher. Throws Error where the variable is malformed.
int launched_size();
/// This process's rank; 0 without a launcher. Local: among those of its host.
int launched_rank();
int launched_local_rank();
int launched_local_size();  // ranks of this host

}  // namespace msa
