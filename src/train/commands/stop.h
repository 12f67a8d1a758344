// SIGINT and SIGTERM as a flag.
#pragma once

namespace msa::train {

/// From now on the first SIGINT or SIGTERM sets the flag; the second one ends the program at once.
void install_stop_handler();
bool stop_requested();

}  // namespace msa::train
