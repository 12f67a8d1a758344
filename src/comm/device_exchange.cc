#include "comm/device_exchange.h"

#include <cstring>
#include <map>

#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#ifdef MSA_WITH_NCCL
#include "comm/nccl_exchange.h"
#endif

namespace msa {
namespace {

constexpr auto kPatience = std::chrono::minutes(2);  // until a rank has opened its GPU

/// What a rank tells rank 0 about its GPU: '+' and which it is, or '-' and why it cannot take part.
std::string offer_of([[maybe_unused]] const Context& context) {
  if (!on_cuda(context.device)) return "-it runs on the CPU";
#ifdef MSA_WITH_NCCL
  const std::string problem = nccl_problem();
  return problem.empty() ? "+" + gpu_identity(context) : "-" + problem;
#else
  return "-the program was built without nccl.h";
#endif
}

Message message_of(const std::string& text) {
  Message message;
  message.head.resize(text.size());
  std::memcpy(message.head.data(), text.data(), text.size());
  return message;
}

std::string receive_text(Exchange& host, int from) {
  Message message;
  const std::string problem = host.receive(from, Exchange::Clock::now() + kPatience, message);
  if (!problem.empty()) {
    throw Error("rank " + std::to_string(from) + ": " + problem, "agreeing on an exchange between GPUs",
                "look at what that rank reports");
  }
  return {reinterpret_cast<const char*>(message.head.data()), message.head.size()};
}

/// Why the ranks that make these offers cannot use NCCL; "" when they can.
std::string obstacle_in(const std::vector<std::string>& offers) {
  std::map<std::string, size_t> rank_of_gpu;
  for (size_t rank = 0; rank < offers.size(); ++rank) {
    const std::string offer = offers[rank];
    if (offer.substr(0, 1) != "+") return "rank " + std::to_string(rank) + ": " + offer.substr(1);
    const auto [at, is_new] = rank_of_gpu.emplace(offer.substr(1), rank);
    if (is_new) continue;
    return "ranks " + std::to_string(at->second) + " and " + std::to_string(rank) + " use one GPU (" + at->first + ")";
  }
  return {};
}

/// Collective: rank 0 hears all and tells all.
std::string agreed_obstacle(const Context& context, Exchange& host) {
  const std::string mine = offer_of(context);
  if (host.rank() != 0) {
    host.send({0}, message_of(mine));
    return receive_text(host, 0).substr(1);
  }
  std::vector<std::string> offers = {mine};
  std::vector<int> others;
  for (int rank = 1; rank < host.size(); ++rank) {
    offers.push_back(receive_text(host, rank));
    others.push_back(rank);
  }
  const std::string obstacle = obstacle_in(offers);
  host.send(others, message_of(":" + obstacle));
  return obstacle;
}

}  // namespace

DeviceTransport parse_transport(const std::string& name) {
  if (name == "auto") return DeviceTransport::kAuto;
  if (name == "nccl") return DeviceTransport::kNccl;
  if (name == "host") return DeviceTransport::kHost;
  throw Error("\"" + name + "\" is no way to exchange", "--exchange", "use auto, nccl or host");
}

std::unique_ptr<Exchange> device_exchange(Context& context, std::unique_ptr<Exchange> host, DeviceTransport which) {
  if (which == DeviceTransport::kHost) return host;
  const std::string obstacle = agreed_obstacle(context, *host);
  if (!obstacle.empty() && which == DeviceTransport::kNccl) {
    throw Error("NCCL cannot be used: " + obstacle, "exchange between GPUs",
                "start at most one rank a GPU and install NCCL (libnccl.so.2), or exchange through the host");
  }
#ifdef MSA_WITH_NCCL
  if (obstacle.empty()) return nccl_exchange(context, std::move(host));
#endif
  if (on_cuda(context.device) && host->rank() == 0) spdlog::info("ranks exchange through the host: {}", obstacle);
  return host;
}

}  // namespace msa
