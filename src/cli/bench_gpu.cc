// msa bench gpu: every stage on a GPU beside what bounds it and what the public code takes, on one page.
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <iostream>
#include <optional>

#include "cli/bench.h"
#include "core/copy.h"
#include "core/cuda.h"
#include "model/shapes.h"
#include "ops/attention_backend.h"
#include "ops/fill.h"
#include "ops/limits.h"
#include "ops/routing_quantise.h"
#include "ops/routing_scan.h"

namespace msa::cli {
namespace {

constexpr int kRoutingDocumentChunks = 8;           // 512 tokens
constexpr size_t kLeftFree = size_t{2} << 30;       // bytes of the GPU
constexpr size_t kOneRunBytes = size_t{512} << 20;  // keys beyond the caches: layers can take turns with them

/// What the public reference code takes for the 4B shape (Hugging Face checkpoint MSA-4B), measured on an H200: scores
/// alone on two GPUs, encoding, decoding with transformers. And what this engine is to reach on an H200.
struct Known {
  std::optional<double> goal = {}, public_code = {};
};

struct Figure {
  std::string shape, name, unit;
  double measured = 0, limit = 0;
  bool less_is_better = false;
  Known known = {};
  std::string note = {};

  double share() const { return less_is_better ? limit / measured : measured / limit; }
};

Json to_json(const Figure& f) {
  Json j{{"shape", f.shape},       {"figure", f.name}, {"unit", f.unit},
         {"measured", f.measured}, {"limit", f.limit}, {"share_of_limit", f.share()}};
  if (f.known.goal) j["goal"] = *f.known.goal;
  if (f.known.public_code) j["public_code"] = *f.known.public_code;
  if (!f.note.empty()) j["note"] = f.note;
  return j;
}

/// One question through the routing layers of a made-up bank: keys of as many layers as fit the GPU, taken in turns.
class RouteBench {
 public:
  RouteBench(Context& context, const ModelConfig& config, const BenchOptions& o)
      : context_(context),
        layers_(static_cast<int>(config.memory.routing_layers.size())),
        width_(config.kv_size()),
        chunks_(std::max<int64_t>(1, o.bank_tokens / config.memory.chunk_tokens)),
        documents_((chunks_ + kRoutingDocumentChunks - 1) / kRoutingDocumentChunks),
        repeats_(o.repeats) {
    if (chunks_ > INT32_MAX) throw Error("more chunks than a layer can have", "--bank-tokens", "use fewer tokens");
    query_.m = o.query_tokens;
    query_.k = std::min(config.memory.top_k_documents, kMaxRoutingTopK);
    const Tensor queries = memory_.emplace_back().tensor(DType::kF32, {query_.m, width_}, context.device);
    fill_uniform(context, queries, 0.05f, 8);
    query_.queries = queries.as<float>();
    std::vector<int32_t> owner(static_cast<size_t>(chunks_));
    for (size_t i = 0; i < owner.size(); ++i) owner[i] = static_cast<int32_t>(i / kRoutingDocumentChunks);
    owner_ = to_device(context, Tensor(owner.data(), DType::kI32, {chunks_}), memory_.emplace_back());
    const auto bytes = routing_scratch_bytes(chunks_, static_cast<int>(documents_), width_, query_.m);
    scratch_ = {memory_.emplace_back(bytes, context.device).data(), bytes, cuda_stream_handle(*context.cuda)};
    selection_ = memory_.emplace_back(sizeof(RoutingSelection), context.device).data();
  }

  /// bits: of the keys that are scanned, 16 or 8.
  Figure measure(int bits) {
    const size_t row = bits == 16 ? static_cast<size_t>(width_) * sizeof(bf16) : quantised_key_bytes(width_, bits);
    const size_t layer_bytes = static_cast<size_t>(chunks_) * row;
    std::deque<Buffer> keys;
    if (bits != 16) make_exact(keys);
    std::vector<RoutingBank> banks;
    while (static_cast<int>(banks.size()) < layers_ && (banks.empty() || has_room(layer_bytes))) {
      banks.push_back(make_bank(keys, bits));
    }
    const auto n = banks.size();
    const Timing t = time_runs(repeats_, [&] {
      for (int layer = 0; layer < layers_; ++layer) route(banks[static_cast<size_t>(layer) % n], bits);
      synchronize(context_);
    });
    const double limit = static_cast<double>(layer_bytes) * layers_ / bench::read_limit(context_) / 1e6;
    Figure f{"", fmt::format("route {} tokens, {} keys", amount(), bits == 16 ? "bf16" : "int8"), "ms"};
    f.measured = t.best_ms, f.limit = limit, f.less_is_better = true;
    if (static_cast<int>(n) < layers_) f.note = fmt::format("keys of {} of {} layers, in turns", n, layers_);
    if (layer_bytes < kOneRunBytes) f.note += "the caches hold a part of the keys";
    return f;
  }

 private:
  std::string amount() const {
    const double tokens = static_cast<double>(chunks_) * 64;
    return tokens >= 1e6 ? fmt::format("{:.0f}M", tokens / 1e6) : fmt::format("{:.0f}k", tokens / 1e3);
  }

  bool has_room(size_t bytes) const { return cuda_bytes(context_.device.index).free > bytes + kLeftFree; }

  /// bf16 keys; quantised layers are all made from one layer's.
  void make_exact(std::deque<Buffer>& keys) {
    exact_ = keys.emplace_back().tensor(DType::kBF16, {chunks_, width_}, context_.device);
    fill_uniform(context_, exact_, 0.15f, static_cast<uint32_t>(keys.size()));
  }

  RoutingBank make_bank(std::deque<Buffer>& keys, int bits) {
    RoutingBank bank;
    bank.document_of_chunk = owner_.as<int32_t>();
    bank.n_chunks = chunks_, bank.n_documents = static_cast<int>(documents_), bank.n = width_;
    if (bits == 16) make_exact(keys);
    bank.keys = exact_.as<bf16>();
    if (bits == 16) return bank;
    bank.key_bits = bits;
    const auto row = static_cast<int64_t>(quantised_key_bytes(width_, bits));
    const Tensor quantised = keys.emplace_back().tensor(DType::kI8, {chunks_, row}, context_.device);
    quantise_keys_cuda(bank.keys, chunks_, width_, bits, quantised.data, scratch_.stream);
    bank.quantised_keys = quantised.data;
    return bank;
  }

  void route(const RoutingBank& bank, int bits) {
    auto* const to = static_cast<RoutingSelection*>(selection_);
    bits == 16 ? route_bf16(bank, query_, scratch_, to) : route_certified(bank, query_, scratch_, to);
  }

  Context& context_;
  int layers_, width_;
  int64_t chunks_, documents_;
  int repeats_;
  std::deque<Buffer> memory_;
  Tensor owner_;  // I32 [chunks]
  Tensor exact_;  // BF16 [chunks, width], the last made
  RoutingQuery query_;
  RoutingScratch scratch_;
  void* selection_ = nullptr;
};

struct Goals {
  Known route_bf16, route_int8, encode, decode;
};

Goals goals_of(const std::string& shape) {
  if (shape != "4b") return {};
  return {{16, 524}, {8, 524}, {75000, 22300}, {430, 17.6}};
}

void measure_shape(Context& context, const Common& common, const BenchOptions& o, std::vector<Figure>& out) {
  const Goals goals = goals_of(o.shape);
  const auto add = [&](Figure f, const Known& known) {
    f.shape = o.shape;
    f.known = known;
    out.push_back(std::move(f));
  };
  {
    RouteBench route(context, named_shape(o.shape), o);
    add(route.measure(16), goals.route_bf16);
    add(route.measure(8), goals.route_int8);
  }
  cuda_give_back(context.device.index);
  const BenchModel model(context, common, o.shape);
  const Json encode = measure_encode(context, common, model, o), decode = measure_decode(context, model, o);
  const auto rate = [](const Json& j) { return j["tokens_per_second"].get<double>(); };
  const auto bound = [&](const Json& j, const char* reached, const char* limit) {
    return rate(j) * j[limit].get<double>() / j[reached].get<double>();
  };
  add({"", fmt::format("encode, documents of {} tokens", o.document_tokens), "tok/s", rate(encode),
       bound(encode, "matrix_gflops", "limit_gflops")},
      goals.encode);
  add({"", "decode, batch 1", "tok/s", rate(decode), bound(decode, "weight_gb_per_second", "limit_gb_per_second")},
      goals.decode);
  const Json ttft = measure_ttft(context, common, model, o);
  add({"",
       fmt::format("question to first token, {:.0f}M tokens", static_cast<double>(o.bank_tokens) / 1e6),
       "ms",
       ttft["best_ms"].get<double>(),
       ttft["read_limit_ms"].get<double>(),
       true,
       {},
       ttft["keys"].get<std::string>()},
      {});
}

std::string number(const std::optional<double>& x) {
  if (!x) return "";
  return *x >= 1000 ? fmt::format("{:.0f}", *x) : *x >= 100 ? fmt::format("{:.1f}", *x) : fmt::format("{:.2f}", *x);
}

void print(const std::vector<Figure>& figures) {
  std::cout << fmt::format("{:6}{:38}{:>10} {:6}{:>10}{:>7}{:>9}{:>9}{:>8}\n", "shape", "figure", "measured", "",
                           "limit", "share", "goal", "public", "times");
  for (const Figure& f : figures) {
    std::optional<double> times;
    if (f.known.public_code) {
      times = f.less_is_better ? *f.known.public_code / f.measured : f.measured / *f.known.public_code;
    }
    std::cout << fmt::format("{:6}{:38}{:>10} {:6}{:>10}{:>7.2f}{:>9}{:>9}{:>8}\n", f.shape, f.name, number(f.measured),
                             f.unit, number(f.limit), f.share(), number(f.known.goal), number(f.known.public_code),
                             times ? fmt::format("{:.1f}", *times) : "");
    if (!f.note.empty()) std::cout << fmt::format("      {}\n", f.note);
  }
  std::cout << "limit: reading keys and weights once, or the matrix products alone, at the rates above.\n"
               "goal, public: for an H200; the public code's routing is its scores alone, on two GPUs.\n";
}

}  // namespace

int bench_gpu(const Common& common, const BenchOptions& options) {
  Common on_gpu = common;
  if (on_gpu.device.empty() && std::getenv("MSA_DEVICE") == nullptr) on_gpu.device = "cuda";
  Context context = make_context(on_gpu);
  if (!on_cuda(context.device)) throw Error("this benchmark is of a GPU", "--device", "use --device cuda");
  if constexpr (kHasCuda) {
    std::vector<Figure> figures;
    for (const std::string shape : {"4b", "135m"}) {
      if (!options.shape.empty() && options.shape != shape) continue;
      BenchOptions o = options;
      o.shape = shape;
      o.documents = options.gpu_documents;
      measure_shape(context, on_gpu, o, figures);
    }
    if (figures.empty()) throw Error("no such shape: " + options.shape, "--shape", "use 4b or 135m");
    const double products = bench::product_limit(context, LinearFormat::kBF16), reads = bench::read_limit(context);
    const std::string attention = packed_attention_backend(context);
    if (common.json) {
      Json rows = Json::array();
      for (const Figure& f : figures) rows.push_back(to_json(f));
      print_json({{"gpu", device_name(context.device)},
                  {"limit_gflops", products},
                  {"limit_gb_per_second", reads},
                  {"attention", attention},
                  {"figures", rows}});
      return 0;
    }
    std::cout << fmt::format("{}: {:.0f} TFLOP/s of a large product, {:.0f} GB/s of a copy; attention by {}\n",
                             device_name(context.device), products / 1e3, reads, attention);
    print(figures);
  }
  return 0;
}

}  // namespace msa::cli
