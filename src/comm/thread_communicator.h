// Ranks that are threads of one process.
#pragma once
#include <functional>

#include "comm/communicator.h"

namespace msa {

/// One communicator for each rank of a new group, by rank; each goes to a thread of its own. Destroying one breaks the
/// group for the others: their next or current operation throws. Calls that differ between ranks throw on all of them.
std::vector<std::unique_ptr<Communicator>> thread_communicators(int size, const CommunicatorOptions& options = {});

/// Runs body on `size` threads, each with its own communicator, and returns when all are done. When ranks throw, the
/// first exception in time is rethrown here: the cause, not the other ranks' complaints about it.
void run_ranks(int size, const std::function<void(Communicator&)>& body, const CommunicatorOptions& options = {});

}  // namespace msa
