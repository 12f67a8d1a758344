#include "model/shapes.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "ops/fill.h"

namespace msa {
namespace {

std::vector<int> upper_half(int layers) {
  std::vector<int> out;
  for (int l = layers / 2; l < layers; ++l) out.push_back(l);
  return out;
}

/// Makes tensors one after another, each from a seed of its own.
class RandomWeights {
 public:
  RandomWeights(Context& context, const ModelConfig& config, uint32_t seed)
      : context_(context), c_(config), seed_(seed) {}

  ModelWeights make() {
    weights_.config = c_;
    weights_.fingerprint = "random " + std::to_string(seed_);
    weights_.embedding = matrix(c_.vocab, c_.hidden);
    weights_.final_norm = ones(c_.hidden);
    weights_.lm_head = c_.tied_embeddings ? weights_.embedding : matrix(c_.vocab, c_.hidden);
    for (int l = 0; l < c_.n_layers; ++l) weights_.layers.push_back(layer(l));
    return std::move(weights_);
  }

 private:
  LayerWeights layer(int l) {
    LayerWeights w;
    w.input_norm = ones(c_.hidden);
    w.q = matrix(c_.q_size(), c_.hidden);
    w.k = matrix(c_.kv_size(), c_.hidden);
    w.v = matrix(c_.kv_size(), c_.hidden);
    w.o = matrix(c_.hidden, c_.q_size());
    if (c_.architecture == Architecture::kQwen3) {
      w.q_norm = ones(c_.head_dim);
      w.k_norm = ones(c_.head_dim);
    }
    if (c_.is_routing(l)) {
      w.router_q = matrix(c_.q_size(), c_.hidden);
      w.router_k = matrix(c_.kv_size(), c_.hidden);
    }
    w.post_attention_norm = ones(c_.hidden);
    w.gate = matrix(c_.intermediate, c_.hidden);
    w.up = matrix(c_.intermediate, c_.hidden);
    w.down = matrix(c_.hidden, c_.intermediate);
    return w;
  }

  Tensor own(DType type, std::initializer_list<int64_t> dims, Device device) {
    const auto memory = std::make_shared<Buffer>();
    weights_.owners.push_back(memory);
    return memory->tensor(type, dims, device);
  }

  Tensor matrix(int64_t out, int64_t in) {
    const Tensor t = own(DType::kBF16, {out, in}, context_.device);
    fill_uniform(context_, t, std::sqrt(3.0f / static_cast<float>(in)), ++seed_);
    return t;
  }

  Tensor ones(int64_t n) {
    const Tensor t = own(DType::kF32, {n}, {});
    std::fill_n(t.as<float>(), n, 1.0f);
    return t;
  }

  Context& context_;
  const ModelConfig& c_;
  uint32_t seed_;
  ModelWeights weights_;
};

}  // namespace

ModelConfig named_shape(const std::string& name) {
  ModelConfig c;
  c.tied_embeddings = true;
  if (name == "4b") {
    c.architecture = Architecture::kQwen3;
    c.n_layers = 36, c.hidden = 2560, c.n_heads = 32, c.n_kv_heads = 8, c.head_dim = 128;
    c.intermediate = 9728, c.vocab = 151936, c.max_positions = 40960;
    c.rope_theta = 1e6f, c.rms_eps = 1e-6f;
  } else if (name == "135m") {
    c.n_layers = 30, c.hidden = 576, c.n_heads = 9, c.n_kv_heads = 3, c.head_dim = 64;
    c.intermediate = 1536, c.vocab = 49152, c.max_positions = 8192;
    c.rope_theta = 1e5f;
  } else {
    throw Error("unknown shape '" + name + "'", "--shape", "use 4b or 135m");
  }
  c.memory.routing_layers = upper_half(c.n_layers);
  return c;
}

ModelWeights random_weights(Context& context, const ModelConfig& config, uint32_t seed) {
  return RandomWeights(context, config, seed).make();
}

}  // namespace msa
