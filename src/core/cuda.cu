#include "core/cuda.h"
#include "core/cuda_state.h"
#include "core/error.h"

namespace msa {

int use_device(int index) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    static_cast<void>(cudaGetLastError());
    const char* why = status == cudaSuccess ? "no CUDA device" : cudaGetErrorString(status);
    throw Error(std::string("no usable NVIDIA GPU: ") + why, "--device cuda",
                "run on a machine with an NVIDIA GPU and a driver for CUDA 13, or use --device cpu");
  }
  if (index < 0 || index >= count) {
    throw Error("there is no GPU " + std::to_string(index) + ", only " + std::to_string(count), "--device cuda",
                "use a number below " + std::to_string(count));
  }
  cuda_check(cudaSetDevice(index), "cudaSetDevice");
  return index;
}

void cuda_check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status), std::string("CUDA, ") + what,
              "CUDA_LAUNCH_BLOCKING=1 names the kernel that failed; compute-sanitizer the access");
}

CudaState::CudaState(int device) : index(use_device(device)) {
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  if (properties.major < 8) {
    throw Error(std::string(properties.name) + " has compute capability " + std::to_string(properties.major) + "." +
                    std::to_string(properties.minor) + ", at least 8.0 is needed (bf16)",
                "--device cuda", "use an Ampere GPU or a later one, or --device cpu");
  }
  processors = properties.multiProcessorCount;
  overlaps_kernels = properties.major >= 9;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  cuda_check(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking), "cudaStreamCreate");
}

CudaState::~CudaState() {
  cudnn_.reset();
  cudaStreamDestroy(stream);
  cudaStreamDestroy(copies);
}

Cudnn* CudaState::cudnn() {
  if (has_looked_for_cudnn_) return cudnn_.get();
  has_looked_for_cudnn_ = true;
  if (overlaps_kernels) cudnn_ = Cudnn::open(stream);  // packed sequences: Hopper and later
  return cudnn_.get();
}

std::shared_ptr<CudaState> open_cuda(int index) { return std::make_shared<CudaState>(index); }

std::string cuda_name(int index) {
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, use_device(index)), "cudaGetDeviceProperties");
  return properties.name;
}

int cuda_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0 ? count : 1;
}

void cuda_copy(CudaState& state, const Tensor& from, const Tensor& to) {
  if (from.elements() == 0) return;
  cuda_check(cudaSetDevice(state.index), "cudaSetDevice");
  const auto row_bytes = static_cast<size_t>(from.dense_row_bytes());
  const auto rows = static_cast<size_t>(from.rows());
  if (from.is_dense() && to.is_dense()) {
    cuda_check(cudaMemcpyAsync(to.data, from.data, rows * row_bytes, cudaMemcpyDefault, state.stream), "copy");
  } else {
    cuda_check(cudaMemcpy2DAsync(to.data, static_cast<size_t>(to.row_bytes), from.data,
                                 static_cast<size_t>(from.row_bytes), row_bytes, rows, cudaMemcpyDefault, state.stream),
               "copy of strided rows");
  }
  if (to.device.type == DeviceType::kCpu) cuda_synchronize(state);
}

void cuda_synchronize(CudaState& state) { cuda_check(cudaStreamSynchronize(state.stream), "synchronisation"); }

void* cuda_stream_handle(CudaState& state) {
  cuda_check(cudaSetDevice(state.index), "cudaSetDevice");
  return state.stream;
}

struct CudaMark {
  CudaMark() { cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate"); }
  ~CudaMark() { cudaEventDestroy(event); }
  CudaMark(const CudaMark&) = delete;
  CudaMark& operator=(const CudaMark&) = delete;
  cudaEvent_t event = nullptr;
};

std::shared_ptr<CudaMark> cuda_mark(CudaState& state) {
  cuda_check(cudaSetDevice(state.index), "cudaSetDevice");
  auto mark = std::make_shared<CudaMark>();
  cuda_check(cudaEventRecord(mark->event, state.stream), "cudaEventRecord");
  return mark;
}

void cuda_wait(const CudaMark& mark) { cuda_check(cudaEventSynchronize(mark.event), "waiting for work on the GPU"); }

void cuda_copy_after(CudaState& state, const CudaMark& mark, const Tensor& from, const Tensor& to) {
  MSA_CHECK(from.is_dense() && to.is_dense());
  cuda_check(cudaSetDevice(state.index), "cudaSetDevice");
  cuda_check(cudaStreamWaitEvent(state.copies, mark.event, 0), "cudaStreamWaitEvent");
  const auto bytes = static_cast<size_t>(from.bytes());
  cuda_check(cudaMemcpyAsync(to.data, from.data, bytes, cudaMemcpyDeviceToHost, state.copies), "copy to the host");
  cuda_check(cudaStreamSynchronize(state.copies), "copy to the host");
}

struct CudaGraph {
  ~CudaGraph() {
    if (executable != nullptr) cudaGraphExecDestroy(executable);
  }
  cudaGraphExec_t executable = nullptr;
};

std::shared_ptr<CudaGraph> cuda_capture(CudaState& state, const std::function<void()>& work) {
  cuda_check(cudaSetDevice(state.index), "cudaSetDevice");
  cuda_check(cudaStreamBeginCapture(state.stream, cudaStreamCaptureModeThreadLocal), "begin of a graph");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(state.stream, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  cuda_check(cudaStreamEndCapture(state.stream, &graph), "end of a graph");
  auto made = std::make_shared<CudaGraph>();
  const cudaError_t status = cudaGraphInstantiate(&made->executable, graph, 0);
  cudaGraphDestroy(graph);
  cuda_check(status, "instantiation of a graph");
  return made;
}

void cuda_launch(CudaState& state, const CudaGraph& graph) {
  cuda_check(cudaSetDevice(state.index), "cudaSetDevice");
  cuda_check(cudaGraphLaunch(graph.executable, state.stream), "launch of a graph");
}

cudaStream_t cuda_stream(const Context& context) {
  MSA_CHECK(context.cuda != nullptr);
  cuda_check(cudaSetDevice(context.cuda->index), "cudaSetDevice");
  return context.cuda->stream;
}

}  // namespace msa
