// Messages whose bodies go from GPU to GPU. Built only where CUDA and nccl.h are; the library is opened at run time.
#pragma once
#include <memory>
#include <string>

#include "comm/exchange.h"
#include "core/context.h"

namespace msa {

/// Why this process cannot use NCCL; "" when it can.
std::string nccl_problem();

/// What tells the context's GPU from every other of all hosts.
std::string gpu_identity(const Context& context);

/// Heads go through `host`, bodies through NCCL, ordered with the context's work and without a wait of the host.
/// Collective; every rank must have a GPU of its own.
std::unique_ptr<Exchange> nccl_exchange(Context& context, std::unique_ptr<Exchange> host);

}  // namespace msa
