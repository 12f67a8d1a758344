// How the bodies of messages travel between ranks that compute on GPUs.
#pragma once
#include <memory>
#include <string>

#include "comm/exchange.h"
#include "core/context.h"

namespace msa {

enum class DeviceTransport {
  kAuto,  // NCCL where every rank has a GPU of its own and the library, else by way of the host; the log says which
  kNccl,  // from GPU to GPU
  kHost,
};
DeviceTransport parse_transport(const std::string& name);  // "auto", "nccl", "host"; throws Error otherwise

/// The exchange that the ranks of `host` are to use for this context: `host` itself, or NCCL with `host` behind it.
/// Collective. Throws Error, on all ranks, where kNccl cannot be: two ranks
/// on one GPU, a rank without a GPU or without the library.
std::unique_ptr<Exchange> device_exchange(Context& context, std::unique_ptr<Exchange> host, DeviceTransport which);

}  // namespace msa
