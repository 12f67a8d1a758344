// Times the routing scan over several layers of random keys made on the device, beside a device-to-device copy.
// Layers that do not fit the memory are left out, and the table says how many there were.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "ops/routing_device.cuh"
#include "ops/routing_quantise.h"
#include "ops/routing_scan.h"

namespace msa {
namespace {

struct Options {
  int64_t chunks = 1'562'500;  // 100M tokens
  int layers = 18;
  int width = 1024;
  int chunks_per_document = 8;
  int top_k = 16;
  int centres = 0;
  int rounds = 20;
  std::vector<int> m = {1, 8, 32, 64, 128, 512};
  std::string keys = "all";
};

void check(cudaError_t status) { check_cuda(status, "routing_scan_bench"); }

template <class T>
T* allocate(size_t n) {
  T* data = nullptr;
  check(cudaMalloc(&data, n * sizeof(T)));
  return data;
}

__device__ uint64_t mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

__device__ float normal_of(uint64_t x) {  // sum of four 16-bit numbers
  const int64_t sum = static_cast<int64_t>((x & 0xffff) + (x >> 16 & 0xffff) + (x >> 32 & 0xffff) + (x >> 48));
  return static_cast<float>(sum - 131070) * (1.0f / 37837);
}

constexpr uint64_t kCentreSeed = uint64_t{1} << 60;

/// Element i of a centre of clustered keys.
__device__ float centre_of(uint64_t centre, int i, int width) {
  return normal_of(mix(kCentreSeed + centre * static_cast<uint64_t>(width) + static_cast<uint64_t>(i)));
}

/// keys [n_keys, width]: heads of norm about 1. centres 0: random; else each near one of them, with noise of half its
/// size.
__global__ void fill_keys(uint16_t* keys, int64_t elements, int width, float scale, uint64_t seed, int centres) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < elements;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    float x = normal_of(mix(seed + static_cast<uint64_t>(i)));
    if (centres > 0) {
      const uint64_t centre = mix(~seed + static_cast<uint64_t>(i / width)) % static_cast<uint64_t>(centres);
      x = 0.894f * (centre_of(centre, static_cast<int>(i % width), width) + 0.5f * x);
    }
    keys[i] = static_cast<uint16_t>(__float_as_uint(scale * x) >> 16);
  }
}

/// With centres, every fourth query lies near one.
__global__ void fill_queries(float* queries, int64_t elements, int width, float scale, uint64_t seed, int centres) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= elements) return;
  const int64_t query = i / width;
  queries[i] = scale * normal_of(mix(seed + static_cast<uint64_t>(i)));
  if (centres == 0 || query % 4 != 0) return;
  queries[i] += 0.5f * scale * centre_of(static_cast<uint64_t>(query % centres), static_cast<int>(i % width), width);
}

__global__ void fill_documents(int32_t* documents, int64_t chunks, int per_document) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < chunks) documents[i] = static_cast<int32_t>(i / per_document);
}

unsigned blocks(int64_t items) { return static_cast<unsigned>((items + 255) / 256); }

/// Median milliseconds of `rounds` runs of what `work` enqueues, after two that are not counted.
class Timer {
 public:
  explicit Timer(int rounds) : rounds_(rounds) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    check(cudaEventCreate(&begin_));
    check(cudaEventCreate(&end_));
  }
  cudaStream_t stream() const { return stream_; }

  /// As a graph, so that what the host takes to enqueue is not measured.
  double median_ms(const std::function<void()>& work) const {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    check(cudaDeviceSynchronize());
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    work();
    check(cudaStreamEndCapture(stream_, &graph));
    check(cudaGraphInstantiate(&executable, graph, 0));
    std::vector<float> times;
    for (int i = 0; i < rounds_ + 2; ++i) {
      check(cudaEventRecord(begin_, stream_));
      check(cudaGraphLaunch(executable, stream_));
      check(cudaEventRecord(end_, stream_));
      check(cudaEventSynchronize(end_));
      float ms = 0;
      check(cudaEventElapsedTime(&ms, begin_, end_));
      if (i >= 2) times.push_back(ms);
    }
    check(cudaGraphExecDestroy(executable));
    check(cudaGraphDestroy(graph));
    std::nth_element(times.begin(), times.begin() + rounds_ / 2, times.end());
    return static_cast<double>(times[static_cast<size_t>(rounds_ / 2)]);
  }

 private:
  int rounds_;
  cudaStream_t stream_;
  cudaEvent_t begin_, end_;
};

struct Layers {
  std::vector<RoutingBank> banks;
  size_t key_bytes;  // of one layer, as scanned
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : o_(options),
        timer_(options.rounds),
        n_documents_(static_cast<int>((o_.chunks + o_.chunks_per_document - 1) / o_.chunks_per_document)) {
    documents_ = allocate<int32_t>(static_cast<size_t>(o_.chunks));
    fill_documents<<<blocks(o_.chunks), 256>>>(documents_, o_.chunks, o_.chunks_per_document);
    const int most = *std::max_element(o_.m.begin(), o_.m.end());
    queries_ = allocate<float>(static_cast<size_t>(most) * static_cast<size_t>(o_.width));
    fill_queries<<<blocks(static_cast<int64_t>(most) * o_.width), 256>>>(
        queries_, static_cast<int64_t>(most) * o_.width, o_.width, 0.05f, 77, o_.centres);
    scratch_.bytes = routing_scratch_bytes(o_.chunks, n_documents_, o_.width, most);
    scratch_.data = allocate<char>(scratch_.bytes);
    scratch_.stream = timer_.stream();
    selections_ = allocate<RoutingSelection>(static_cast<size_t>(o_.layers));
  }

  void run() {
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0));
    measure_copy();
    std::printf("%s, %lld chunks of %d, %d documents, top %d; copy %.0f GB/s (read + write)\n", device.name,
                static_cast<long long>(o_.chunks), o_.width, n_documents_, o_.top_k, copy_gb_s_);
    std::printf("%-22s %5s %7s %9s %9s %9s %7s\n", "stage", "M", "layers", "ms", "ms/layer", "GB/s", "share");
    if (o_.keys == "bf16" || o_.keys == "all") run_bf16();
    if (o_.keys == "int8" || o_.keys == "all") run_quantised(8);
    if (o_.keys == "int4" || o_.keys == "all") run_quantised(4);
  }

 private:
  /// Of 2 GB and back, as the shares are of this run's machine.
  void measure_copy() {
    const size_t bytes = size_t{2} << 30;
    char *from = allocate<char>(bytes), *to = allocate<char>(bytes);
    check(cudaMemset(from, 1, bytes));
    const double ms =
        timer_.median_ms([&] { check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, timer_.stream())); });
    copy_gb_s_ = 2 * static_cast<double>(bytes) / ms / 1e6;
    check(cudaFree(from));
    check(cudaFree(to));
  }

  bool fits(size_t bytes) const {
    size_t available = 0, total = 0;
    check(cudaMemGetInfo(&available, &total));
    return available > bytes + (size_t{1} << 30);
  }

  bf16* make_keys(int layer) const {
    const int64_t elements = o_.chunks * o_.width;
    bf16* const keys = allocate<bf16>(static_cast<size_t>(elements));
    fill_keys<<<8192, 256>>>(reinterpret_cast<uint16_t*>(keys), elements, o_.width, 0.09f,
                             static_cast<uint64_t>(layer) << 40, o_.centres);
    check(cudaGetLastError());
    return keys;
  }

  RoutingBank bank_of(const bf16* keys, const void* quantised_keys) const {
    return {keys, quantised_keys, documents_, o_.chunks, n_documents_, o_.width};
  }

  void report(const char* stage, int m, size_t layers, double ms, size_t bytes) const {
    const double gb_s = static_cast<double>(bytes) * static_cast<double>(layers) / ms / 1e6;
    std::printf("%-22s %5d %7zu %9.3f %9.4f %9.0f %6.1f%%\n", stage, m, layers, ms, ms / static_cast<double>(layers),
                gb_s, 100 * gb_s / copy_gb_s_);
    std::fflush(stdout);
  }

  void run_bf16() {
    Layers layers{{}, static_cast<size_t>(o_.chunks) * static_cast<size_t>(o_.width) * sizeof(bf16)};
    while (static_cast<int>(layers.banks.size()) < o_.layers && fits(layers.key_bytes)) {
      layers.banks.push_back(bank_of(make_keys(static_cast<int>(layers.banks.size())), nullptr));
    }
    const size_t n = layers.banks.size();
    for (const int m : o_.m) {
      const RoutingQuery query{queries_, m, o_.top_k};
      report("bf16 scan", m, n, timer_.median_ms([&] {
        for (const RoutingBank& bank : layers.banks) scan_documents(bank, query, scratch_);
      }),
             layers.key_bytes);
      report("bf16 scan + top k", m, n, timer_.median_ms([&] {
        for (size_t i = 0; i < n; ++i) route_bf16(layers.banks[i], query, scratch_, selections_ + i);
      }),
             layers.key_bytes);
    }
    report("top k alone", 0, n, timer_.median_ms([&] {
      for (size_t i = 0; i < n; ++i) select_documents(n_documents_, o_.top_k, scratch_, selections_ + i);
    }),
           static_cast<size_t>(n_documents_) * 4);
    for (const RoutingBank& bank : layers.banks) check(cudaFree(const_cast<bf16*>(bank.keys)));
  }

  /// Quantised keys of all layers; bf16 keys, which only candidates are read from, for as many as fit: others share.
  void run_quantised(int bits) {
    const std::string name = bits == 8 ? "int8" : "int4";
    const size_t row = quantised_key_bytes(o_.width, bits);
    Layers layers{{}, static_cast<size_t>(o_.chunks) * row};
    const size_t exact_bytes = static_cast<size_t>(o_.chunks) * static_cast<size_t>(o_.width) * sizeof(bf16);
    std::vector<bf16*> exact;
    while (static_cast<int>(layers.banks.size()) < o_.layers &&
           fits(layers.key_bytes + (exact.empty() ? exact_bytes : 0))) {
      const int layer = static_cast<int>(layers.banks.size());
      const size_t left = static_cast<size_t>(o_.layers - layer) * layers.key_bytes;
      if (exact.empty() || fits(left + exact_bytes)) exact.push_back(make_keys(layer));
      char* const keys = allocate<char>(layers.key_bytes);
      quantise_keys_cuda(exact.back(), o_.chunks, o_.width, bits, keys, nullptr);
      layers.banks.push_back(bank_of(exact.back(), keys));
      layers.banks.back().key_bits = bits;
    }
    const size_t n = layers.banks.size();
    std::printf("%s: %zu layers, %zu of them with bf16 keys of their own\n", name.c_str(), n, exact.size());
    report("quantise", 0, 1, timer_.median_ms([&] {
      quantise_keys_cuda(layers.banks[0].keys, o_.chunks, o_.width, bits,
                         const_cast<void*>(layers.banks[0].quantised_keys), timer_.stream());
    }),
           layers.key_bytes + exact_bytes);
    for (const int m : o_.m) {
      const RoutingQuery query{queries_, m, o_.top_k};
      report((name + " bounds").c_str(), m, n, timer_.median_ms([&] {
        for (const RoutingBank& bank : layers.banks) scan_bounds(bank, query, scratch_);
      }),
             layers.key_bytes);
      report((name + " certified top k").c_str(), m, n, timer_.median_ms([&] {
        for (size_t i = 0; i < n; ++i) route_certified(layers.banks[i], query, scratch_, selections_ + i);
      }),
             layers.key_bytes);
      compare(layers, query);
    }
    for (const RoutingBank& bank : layers.banks) check(cudaFree(const_cast<void*>(bank.quantised_keys)));
    for (bf16* const keys : exact) check(cudaFree(keys));
  }

  /// Candidates of the layers, and that the selections are those of the bf16 scan.
  void compare(const Layers& layers, const RoutingQuery& query) const {
    std::vector<RoutingSelection> certified(layers.banks.size());
    check(
        cudaMemcpy(certified.data(), selections_, certified.size() * sizeof(RoutingSelection), cudaMemcpyDeviceToHost));
    int fewest = INT32_MAX, most = 0, fell_back = 0, differ = 0;
    for (size_t i = 0; i < certified.size(); ++i) {
      RoutingSelection exact;
      route_bf16(layers.banks[i], query, scratch_, selections_);
      check(cudaStreamSynchronize(timer_.stream()));
      check(cudaMemcpy(&exact, selections_, sizeof(exact), cudaMemcpyDeviceToHost));
      const RoutingSelection& c = certified[i];
      const size_t found = static_cast<size_t>(exact.n);
      differ += c.n != exact.n || std::memcmp(c.documents, exact.documents, found * sizeof(c.documents[0])) != 0 ||
                std::memcmp(c.scores, exact.scores, found * sizeof(c.scores[0])) != 0;
      fewest = std::min(fewest, c.candidates), most = std::max(most, c.candidates), fell_back += c.fell_back;
    }
    std::printf("    candidates %d … %d a layer, %d layers fell back, %d selections differ from bf16\n", fewest, most,
                fell_back, differ);
  }

  const Options o_;
  Timer timer_;
  int n_documents_;
  int32_t* documents_;  // [chunks]
  float* queries_;      // [largest m, width]
  RoutingScratch scratch_;
  RoutingSelection* selections_;  // [layers]
  double copy_gb_s_ = 0;
};

}  // namespace
}  // namespace msa

int main(int argc, char** argv) {
  msa::Options o;
  CLI::App app("Times the routing scan on this machine's GPU");
  app.add_option("--chunks", o.chunks, "chunks of a layer")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--layers", o.layers, "layers, each with keys of its own")->capture_default_str();
  app.add_option("--width", o.width, "elements of a key, a multiple of 32 up to 1024")->capture_default_str();
  app.add_option("--chunks-per-document", o.chunks_per_document)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--top-k", o.top_k)->capture_default_str()->check(CLI::Range(1, msa::kMaxRoutingTopK));
  app.add_option("--centres", o.centres, "keys lie near so many centres; 0: random ones, which bounds decide worst")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--rounds", o.rounds, "runs, of which the median is printed")->capture_default_str();
  app.add_option("--m", o.m, "numbers of query tokens, with commas between")->delimiter(',')->capture_default_str();
  app.add_option("--keys", o.keys)->capture_default_str()->check(CLI::IsMember({"bf16", "int8", "int4", "all"}));
  CLI11_PARSE(app, argc, argv);
  try {
    msa::Bench(o).run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
