// Ctrl-C and SIGTERM as a flag that long work asks for between two steps.
#pragma once

namespace msa {

/// From now on SIGINT and SIGTERM only set the flag, and waiting system calls return EINTR. A second Ctrl-C (SIGINT)
/// ends the program at once. A second SIGTERM does not: `timeout` and job launchers send it to a process and again to
/// its group, and then send SIGKILL to what hangs.
void install_interrupt_handler();
bool interrupted();

}  // namespace msa
