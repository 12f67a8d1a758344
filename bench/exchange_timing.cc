// What a message between the GPUs of two ranks takes: mpirun -n 2 exchange_timing --exchange nccl. Out: a body from the
// GPU of rank 0 to that of rank 1, and a few bytes back. In: a few bytes out, and a body back. Both are waited for.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "comm/device_exchange.h"
#include "comm/launcher.h"
#include "core/copy.h"
#include "core/error.h"

namespace msa {
namespace {

using Clock = Exchange::Clock;

constexpr int64_t kStop = -1;
constexpr int64_t kMost = int64_t{16} << 20;

class Timing {
 public:
  Timing(Context& context, Exchange& exchange, int repeats)
      : context_(context), exchange_(exchange), repeats_(repeats) {
    data_ = data_memory_.tensor(DType::kI8, {kMost}, context.device);
  }

  /// Rank 1: takes what comes and answers with as many bytes as the head says.
  void serve() {
    while (true) {
      receive(0);
      int64_t wanted = 0;
      std::memcpy(&wanted, message_.head.data(), sizeof wanted);
      if (wanted == kStop) return;
      send(1 - exchange_.rank(), wanted, 0);
    }
  }

  void drive() {
    std::printf("%12s %12s %12s   microseconds, medians of %d\n", "bytes", "out", "in", repeats_);
    for (int64_t bytes = 0; bytes <= kMost; bytes = bytes == 0 ? 1024 : bytes * 4) {
      const double out = median_us([&] { send(1, bytes, 0), receive(1); });
      const double in = median_us([&] { send(1, 0, bytes), receive(1); });
      std::printf("%12lld %12.1f %12.1f\n", static_cast<long long>(bytes), out, in);
    }
    send(1, 0, kStop);
  }

 private:
  void send(int to, int64_t bytes, int64_t number) {
    Message message;
    message.head.resize(sizeof number);
    std::memcpy(message.head.data(), &number, sizeof number);
    if (bytes > 0) {
      const Tensor body = data_.slice_rows(0, bytes);
      message.body = on_cuda(exchange_.body_device()) ? body : to_host(context_, body, on_host_);
    }
    exchange_.send({to}, message);
  }

  void receive(int from) {
    const std::string problem = exchange_.receive(from, Clock::now() + std::chrono::seconds(30), message_);
    if (!problem.empty()) throw Error("rank " + std::to_string(from) + ": " + problem, "exchange_timing");
    if (message_.body.empty()) return;
    to_device(context_, message_.body, on_device_);
    synchronize(context_);
  }

  double median_us(const std::function<void()>& work) const {
    for (int i = 0; i < 10; ++i) work();
    std::vector<double> times;
    for (int i = 0; i < repeats_; ++i) {
      const auto start = Clock::now();
      work();
      times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

  Context& context_;
  Exchange& exchange_;
  const int repeats_;
  Buffer data_memory_, on_host_, on_device_;
  Tensor data_;  // I8 [kMost]
  Message message_;
};

void run(const std::string& device, const std::string& transport, int repeats) {
  auto host = exchange_from_environment();
  if (host == nullptr || host->size() != 2) throw Error("needs two ranks", "exchange_timing", "mpirun -n 2");
  Device where = parse_device(device);
  if (on_cuda(where)) where.index = launched_local_rank();
  Context context(1, where);
  const auto exchange = device_exchange(context, std::move(host), parse_transport(transport));
  Timing timing(context, *exchange, repeats);
  exchange->rank() == 0 ? timing.drive() : timing.serve();
}

}  // namespace
}  // namespace msa

int main(int n_arguments, char** arguments) {
  std::string device = "cuda", transport = "auto";
  int repeats = 200;
  CLI::App app("Times messages between the GPUs of two ranks");
  app.add_option("--device", device, "cuda, each rank its own, or cpu")->capture_default_str();
  app.add_option("--exchange", transport, "nccl, host or auto")->capture_default_str();
  app.add_option("--repeats", repeats, "Timed runs of each")->check(CLI::Range(1, 100000))->capture_default_str();
  CLI11_PARSE(app, n_arguments, arguments);
  try {
    msa::run(device, transport, repeats);
    return 0;
  } catch (const msa::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
