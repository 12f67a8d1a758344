#include "train/benchmark.h"

#include <torch/cuda.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>

#include "train/device.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace msa::train {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kHeadTokens = 3;
constexpr int kWarmUpSteps = 3;
constexpr int64_t kLimitSize = 8192, kLimitSizeCpu = 1024;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

void wait_for(torch::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Elements of a layer's matrices: those that a document's tokens meet, and those that a sample's do.
struct MatrixSizes {
  double attention_in, attention_out, mlp, router_k, router_q;
};

MatrixSizes matrix_sizes(const ModelConfig& c) {
  const double hidden = c.hidden;
  return {hidden * (c.q_size() + 2 * c.kv_size()), hidden * c.q_size(), 3 * hidden * c.intermediate,
          hidden * c.kv_size(), hidden * c.q_size()};
}

double product_flops(const ModelConfig& c, const Batch& batch) {
  const MatrixSizes m = matrix_sizes(c);
  const double layers = c.n_layers, routing = static_cast<double>(c.memory.routing_layers.size());
  const double layer = m.attention_in + m.attention_out + m.mlp;
  const double document = layers * layer - m.attention_out - m.mlp + routing * m.router_k;
  const auto count = [](const std::vector<uint8_t>& flags) {
    return static_cast<double>(std::count(flags.begin(), flags.end(), uint8_t{1}));
  };
  const double logits = static_cast<double>(c.hidden) * c.vocab;
  return 6 * (static_cast<double>(batch.tokens.size()) * document +
              static_cast<double>(batch.sample_tokens.size()) * layers * layer +
              count(batch.routed) * routing * m.router_q + count(batch.predicted) * logits);
}

/// Operations a second of a large matrix product in the type that training uses here.
double measure_limit(torch::Device device, torch::Dtype type) {
  const int64_t n = device.is_cuda() ? kLimitSize : kLimitSizeCpu;
  const auto options = torch::TensorOptions().dtype(type).device(device);
  const Tensor a = torch::randn({n, n}, options), b = torch::randn({n, n}, options);
  Tensor c = torch::matmul(a, b);
  constexpr int kRepeats = 10;
  wait_for(device);
  const auto start = Clock::now();
  for (int i = 0; i < kRepeats; ++i) at::matmul_out(c, a, b);
  wait_for(device);
  const double size = static_cast<double>(n);
  return 2 * size * size * size * kRepeats / (ms_since(start) * 1e-3);
}

class Benchmark {
 public:
  Benchmark(const ModelConfig& config, const BenchmarkOptions& options)
      : options_(options),
        type_(options.device.is_cuda() ? torch::kBFloat16 : torch::kFloat),
        backbone_(made_up_weights(config, 1), "", options.parts, type_, options.device, 1),
        network_(config, type_),
        optimizer_({}, backbone_.parameters()) {}

  BenchmarkResult run() {
    std::vector<Batch> batches;
    for (uint64_t seed = 0; seed < 4; ++seed) batches.push_back(made_up_batch(network_.config(), options_.batch, seed));
    std::vector<double> ms;
    for (int i = 0; i < kWarmUpSteps + options_.steps; ++i) {
      const auto start = Clock::now();
      step(batches[static_cast<size_t>(i) % batches.size()]);
      wait_for(options_.device);
      if (i >= kWarmUpSteps) ms.push_back(ms_since(start));
    }
    BenchmarkResult r;
    const Batch& first = batches.front();
    r.tokens = static_cast<int64_t>(first.tokens.size() + first.sample_tokens.size());
    r.step_ms = median(ms);
    r.memory_gib = static_cast<double>(peak_memory(options_.device)) / (1 << 30);
    r.product_flops = product_flops(network_.config(), first);
    measure_parts(first, r);
    r.limit_flops = measure_limit(options_.device, type_);
    return r;
  }

 private:
  StepOptions step_options() const {
    StepOptions o;
    o.recompute = options_.recompute;
    o.late_weight = options_.late ? 1 : 0;
    return o;
  }

  void step(const Batch& batch) {
    const StepInput input = StepInput::from(batch, network_.config(), options_.device);
    backbone_.parameters().zero_gradients();
    run_step(network_, backbone_.effective(), input, step_options()).loss.backward();
    optimizer_.step(backbone_.parameters(), ++steps_, 1.0);
  }

  /// One step once more, waiting behind each part.
  void measure_parts(const Batch& batch, BenchmarkResult& r) {
    auto start = Clock::now();
    const auto lap = [&] {
      wait_for(options_.device);
      const double ms = ms_since(start);
      start = Clock::now();
      return ms;
    };
    const StepInput input = StepInput::from(batch, network_.config(), options_.device);
    r.input_ms = lap();
    backbone_.parameters().zero_gradients();
    const NetworkTensors w = backbone_.effective();
    const auto memory = network_.encode(w, input.pool, input.chunks, options_.recompute);
    r.encode_ms = lap();
    const QueryResult out = network_.query(w, memory, input.documents, input.samples, {input.top_k, {}});
    const Tensor loss = losses_of(network_, w, input, out, step_options()).loss;
    r.query_ms = lap();
    loss.backward();
    r.backward_ms = lap();
    optimizer_.step(backbone_.parameters(), ++steps_, 1.0);
    r.optimizer_ms = lap();
  }

  BenchmarkOptions options_;
  torch::Dtype type_;
  Backbone backbone_;
  Network network_;
  AdamW optimizer_;
  int64_t steps_ = 0;
};

}  // namespace

ModelConfig shape_config(const std::string& name) {
  ModelConfig c;
  if (name == "135m") {
    c.n_layers = 30, c.hidden = 576, c.n_heads = 9, c.n_kv_heads = 3, c.head_dim = 64, c.intermediate = 1536;
    c.vocab = 49152, c.max_positions = 8192, c.rope_theta = 100000.0f;
  } else if (name == "4b") {
    c.architecture = Architecture::kQwen3;
    c.n_layers = 36, c.hidden = 2560, c.n_heads = 32, c.n_kv_heads = 8, c.head_dim = 128, c.intermediate = 9728;
    c.vocab = 151936, c.max_positions = 40960, c.rope_theta = 1000000.0f, c.rms_eps = 1e-6f;
  } else {
    throw Error("unknown shape '" + name + "'", "--shape", "use 135m or 4b");
  }
  c.tied_embeddings = true;
  for (int layer = c.n_layers / 2; layer < c.n_layers; ++layer) c.memory.routing_layers.push_back(layer);
  return c;
}

ModelWeights made_up_weights(const ModelConfig& c, uint64_t seed) {
  ModelWeights w;
  w.config = c;
  std::mt19937_64 random(seed);
  const auto fill = [&](int64_t rows, int64_t columns, float mean, float deviation) {
    const int64_t n = rows * columns;
    const auto memory = std::make_shared<std::vector<float>>(static_cast<size_t>(n));
    constexpr int64_t kDrawn = 1000003;  // a prime: rows that repeat are far apart and never aligned
    std::normal_distribution<float> value(mean, deviation);
    for (int64_t i = 0; i < std::min(n, kDrawn); ++i) (*memory)[static_cast<size_t>(i)] = value(random);
    for (int64_t i = kDrawn; i < n; i += kDrawn) {
      std::memcpy(memory->data() + i, memory->data(), sizeof(float) * static_cast<size_t>(std::min(kDrawn, n - i)));
    }
    w.owners.push_back(memory);
    return columns == 1 ? msa::Tensor(memory->data(), DType::kF32, {rows})
                        : msa::Tensor(memory->data(), DType::kF32, {rows, columns});
  };
  const float deviation = 0.02f;
  w.embedding = w.lm_head = fill(c.vocab, c.hidden, 0, deviation);
  w.final_norm = fill(c.hidden, 1, 1, deviation);
  LayerWeights l;
  l.input_norm = l.post_attention_norm = w.final_norm;
  l.q = l.router_q = fill(c.q_size(), c.hidden, 0, deviation);
  l.k = l.v = l.router_k = fill(c.kv_size(), c.hidden, 0, deviation);
  l.o = fill(c.hidden, c.q_size(), 0, deviation);
  if (c.architecture == Architecture::kQwen3) l.q_norm = l.k_norm = fill(c.head_dim, 1, 1, deviation);
  l.gate = l.up = fill(c.intermediate, c.hidden, 0, deviation);
  l.down = fill(c.hidden, c.intermediate, 0, deviation);
  for (int layer = 0; layer < c.n_layers; ++layer) {
    w.layers.push_back(l);
    if (!c.is_routing(layer)) w.layers.back().router_q = w.layers.back().router_k = {};
  }
  return w;
}

Batch made_up_batch(const ModelConfig& config, const BenchmarkBatch& shape, uint64_t seed) {
  std::mt19937_64 random(seed);
  Batch b;
  b.starts = b.sample_starts = b.positive_starts = b.ignored_starts = {0};
  std::uniform_int_distribution<int32_t> token(0, config.vocab - 1);
  const auto append = [&](std::vector<int32_t>& to, std::vector<int64_t>& starts, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to.push_back(token(random));
    starts.push_back(static_cast<int64_t>(to.size()));
  };
  append(b.tokens, b.starts, kHeadTokens);
  std::uniform_int_distribution<int64_t> length(shape.document_tokens_from, shape.document_tokens_to);
  while (static_cast<int64_t>(b.tokens.size()) < shape.pool_tokens) {
    append(b.tokens, b.starts, std::min(length(random), shape.pool_tokens - static_cast<int64_t>(b.tokens.size())));
  }
  b.n_trained = b.documents();
  for (int64_t i = 0; i < shape.samples; ++i) {
    append(b.sample_tokens, b.sample_starts, shape.sample_tokens);
    for (int t = 0; t < shape.sample_tokens; ++t) {
      b.routed.push_back(t < shape.question_tokens ? 1 : 0);
      b.predicted.push_back(t >= shape.sample_tokens - shape.written_tokens ? 1 : 0);
    }
    b.kinds.push_back(SampleKind::kRetrieve);
    b.positives.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(b.documents())));
    b.positive_starts.push_back(i + 1);
    b.ignored_starts.push_back(0);
  }
  return b;
}

BenchmarkResult run_benchmark(const ModelConfig& config, const BenchmarkOptions& options) {
  return Benchmark(config, options).run();
}

}  // namespace msa::train
