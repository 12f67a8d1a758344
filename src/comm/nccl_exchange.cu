#include <dlfcn.h>
#include <nccl.h>

#include <cstring>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "comm/nccl_exchange.h"
#include "core/buffer.h"
#include "core/cuda_state.h"
#include "core/error.h"

namespace msa {
namespace {

constexpr const char* kLibrary = "libnccl.so.2";
constexpr const char* kFix =
    "install NCCL 2 for CUDA 13, or `pip install nvidia-nccl-cu13` and set LD_LIBRARY_PATH to its lib folder";

#define MSA_NCCL_FUNCTIONS(DO) \
  DO(ncclGetUniqueId)          \
  DO(ncclCommInitRank)         \
  DO(ncclCommDestroy)          \
  DO(ncclCommAbort)            \
  DO(ncclCommGetAsyncError)    \
  DO(ncclGetErrorString)       \
  DO(ncclGetLastError)         \
  DO(ncclSend)                 \
  DO(ncclRecv)                 \
  DO(ncclGroupStart)           \
  DO(ncclGroupEnd)

/// The functions of the library, found by name.
struct Functions {
#define MSA_DECLARE(name) decltype(&::name) name = nullptr;
  MSA_NCCL_FUNCTIONS(MSA_DECLARE)
#undef MSA_DECLARE
};

Functions open_library() {
  void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Error("cannot be opened", kLibrary, kFix);
  Functions f;
  const auto find = [&](const char* name) {
    void* const found = dlsym(library, name);
    if (found == nullptr) throw Error(std::string("has no function ") + name, kLibrary, kFix);
    return found;
  };
#define MSA_FIND(name) f.name = reinterpret_cast<decltype(f.name)>(find(#name));
  MSA_NCCL_FUNCTIONS(MSA_FIND)
#undef MSA_FIND
  return f;
}

const Functions& library() {
  static const Functions functions = open_library();
  return functions;
}

/// "" for ncclSuccess.
std::string problem_of(ncclResult_t status, ncclComm_t comm) {
  if (status == ncclSuccess) return {};
  const std::string detail = library().ncclGetLastError(comm);
  return std::string("NCCL reports ") + library().ncclGetErrorString(status) + (detail.empty() ? "" : ": " + detail);
}

/// Transfers run on the context's stream, so that they need no order of their own: what is sent may be overwritten by
/// what follows, and a rank's scan begins when its query is on its way to the others. (On a second stream the transfer
/// can find the GPU taken by the scan and the others begin when it ends.) A send of the sizes that a layer exchanges
/// ends when the bytes are in the receiver's buffer; only a larger one waits for the receiver.
class NcclExchange final : public Exchange {
 public:
  NcclExchange(Context& context, std::unique_ptr<Exchange> host);
  ~NcclExchange() override;

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  Device body_device() const override { return device_; }
  void send(const std::vector<int>& to, const Message& message) override;
  std::string receive(int from, Clock::time_point deadline, Message& message) override;
  void give_up(int rank) override;

 private:
  /// The context's; its GPU becomes the thread's current one.
  cudaStream_t stream() { return static_cast<cudaStream_t>(cuda_stream_handle(*cuda_)); }
  ncclUniqueId share_id();
  /// One transfer each way between rank 0 and the others: a first one that had to connect would wait for the other rank
  /// in the call itself.
  void connect();
  void check(ncclResult_t status, const char* operation);

  const std::shared_ptr<CudaState> cuda_;
  const Device device_;
  const int exceptions_at_birth_ = std::uncaught_exceptions();
  std::unique_ptr<Exchange> host_;
  ncclComm_t comm_ = nullptr;
  std::string broken_;  // why, once NCCL has failed or a rank was given up
};

NcclExchange::NcclExchange(Context& context, std::unique_ptr<Exchange> host)
    : cuda_(context.cuda), device_(context.device), host_(std::move(host)) {
  const ncclUniqueId id = share_id();
  stream();
  check(library().ncclCommInitRank(&comm_, size(), id, rank()), "ncclCommInitRank");
  connect();
}

/// Where an Error ends this rank, nobody ends the group with it: ncclCommDestroy could then wait for ever.
NcclExchange::~NcclExchange() {
  if (comm_ == nullptr) return;
  stream();
  const bool ends_well = broken_.empty() && std::uncaught_exceptions() == exceptions_at_birth_;
  ends_well ? library().ncclCommDestroy(comm_) : library().ncclCommAbort(comm_);
}

void NcclExchange::check(ncclResult_t status, const char* operation) {
  if (status == ncclSuccess) return;
  broken_ = problem_of(status, comm_);
  throw Error(broken_, "rank " + std::to_string(rank()) + " of " + std::to_string(size()) + " in " + operation,
              "look at what the other ranks report; NCCL_DEBUG=INFO says more");
}

ncclUniqueId NcclExchange::share_id() {
  constexpr auto kPatience = std::chrono::minutes(2);
  ncclUniqueId id{};
  Message message;
  if (rank() == 0) {
    check(library().ncclGetUniqueId(&id), "ncclGetUniqueId");
    message.head.resize(sizeof id);
    std::memcpy(message.head.data(), &id, sizeof id);
    std::vector<int> others;
    for (int r = 1; r < size(); ++r) others.push_back(r);
    host_->send(others, message);
    return id;
  }
  const std::string problem = host_->receive(0, Clock::now() + kPatience, message);
  if (!problem.empty() || message.head.size() != sizeof id) {
    throw Error("rank 0 did not say where to meet: " + problem, "rank " + std::to_string(rank()),
                "look at what rank 0 reports");
  }
  std::memcpy(&id, message.head.data(), sizeof id);
  return id;
}

void NcclExchange::connect() {
  constexpr size_t kBytes = 1024;
  Buffer memory(2 * kBytes, device_);
  auto* const bytes = static_cast<char*>(memory.data());
  const auto pair = [&](int other) {
    check(library().ncclGroupStart(), "connect");
    check(library().ncclSend(bytes, kBytes, ncclInt8, other, comm_, stream()), "connect");
    check(library().ncclRecv(bytes + kBytes, kBytes, ncclInt8, other, comm_, stream()), "connect");
    check(library().ncclGroupEnd(), "connect");
  };
  if (rank() != 0) pair(0);
  for (int r = 1; rank() == 0 && r < size(); ++r) pair(r);
  cuda_check(cudaStreamSynchronize(stream()), "connecting GPUs");
}

void NcclExchange::send(const std::vector<int>& to, const Message& message) {
  const uint64_t bytes = message.body_bytes();
  Message head;
  head.head = message.head;
  head.head.resize(message.head.size() + sizeof bytes);
  std::memcpy(head.head.data() + message.head.size(), &bytes, sizeof bytes);
  host_->send(to, head);
  if (bytes == 0 || to.empty() || !broken_.empty()) return;  // broken: that shows when the reply is waited for
  MSA_CHECK(message.body.device == device_ && message.body.is_dense());
  check(library().ncclGroupStart(), "send");
  for (const int rank : to) {
    check(library().ncclSend(message.body.data, bytes, ncclInt8, rank, comm_, stream()), "send");
  }
  check(library().ncclGroupEnd(), "send");
}

std::string NcclExchange::receive(int from, Clock::time_point deadline, Message& message) {
  if (!broken_.empty()) return broken_;
  std::string problem = host_->receive(from, deadline, message);
  if (!problem.empty()) return problem;
  uint64_t bytes = 0;
  MSA_CHECK(message.head.size() >= sizeof bytes);
  const size_t head = message.head.size() - sizeof bytes;
  std::memcpy(&bytes, message.head.data() + head, sizeof bytes);
  message.head.resize(head);
  message.body = {};
  if (bytes == 0) return {};
  ncclResult_t asynchronous = ncclSuccess;
  check(library().ncclCommGetAsyncError(comm_, &asynchronous), "receive");
  if (asynchronous != ncclSuccess) return broken_ = problem_of(asynchronous, comm_);
  message.body = message.memory.tensor(DType::kI8, {static_cast<int64_t>(bytes)}, device_);
  check(library().ncclRecv(message.body.data, bytes, ncclInt8, from, comm_, stream()), "receive");
  return {};
}

/// What is on its way to that rank would hold up the GPU for ever, so the group ends here.
void NcclExchange::give_up(int rank) {
  host_->give_up(rank);
  if (broken_.empty()) broken_ = "rank " + std::to_string(rank) + " was given up, and NCCL's group with it";
  if (comm_ == nullptr) return;
  stream();
  library().ncclCommAbort(comm_);
  comm_ = nullptr;
}

}  // namespace

std::string nccl_problem() {
  try {
    library();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

std::string gpu_identity(const Context& context) {
  MSA_CHECK(context.cuda != nullptr);
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, use_device(context.cuda->index)), "cudaGetDeviceProperties");
  std::string text = "GPU-";
  for (const char c : properties.uuid.bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    text += kDigits[static_cast<unsigned char>(c) >> 4];
    text += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return text;
}

std::unique_ptr<Exchange> nccl_exchange(Context& context, std::unique_ptr<Exchange> host) {
  return std::make_unique<NcclExchange>(context, std::move(host));
}

}  // namespace msa
