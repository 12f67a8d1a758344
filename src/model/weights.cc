#include "model/weights.h"

#include <array>
#include <optional>

#include "core/buffer.h"
#include "core/quant.h"
#include "core/thread_pool.h"
#include "io/checksum.h"
#include "io/file.h"
#include "io/json_file.h"
#include "io/text.h"
#include "model/adapter.h"
#include "model/base_tensors.h"

namespace msa {
namespace {

std::string shape_text(int64_t rows, int64_t columns) {
  std::string text = std::to_string(rows);
  if (columns >= 0) text += ", " + std::to_string(columns);
  return '[' + text + ']';
}

bool is_weight_type(DType type) { return type != DType::kI8 && type != DType::kI32 && type != DType::kI64; }

/// Takes tensors by name, checks them, and merges the adapter into them.
class Assembler {
 public:
  Assembler(BaseTensors base, std::shared_ptr<const Adapter> adapter)
      : base_(std::move(base)), adapter_(std::move(adapter)), config_(base_.config) {}

  ModelWeights assemble() {
    ModelWeights weights;
    refuse_biases();
    weights.embedding = matrix("model.embed_tokens.weight", config_.vocab, config_.hidden);
    weights.final_norm = norm("model.norm.weight", config_.hidden);
    weights.lm_head = weights.embedding;
    if (!config_.tied_embeddings) weights.lm_head = matrix("lm_head.weight", config_.vocab, config_.hidden);
    const bool routes = any_router();
    take_layer_weights();
    for (int l = 0; l < config_.n_layers; ++l) weights.layers.push_back(layer(l, routes));
    weights.config = config_;
    if (adapter_ != nullptr) base_.owners.push_back(adapter_);
    weights.owners = std::move(base_.owners);
    return weights;
  }

 private:
  LayerWeights layer(int l, bool routes) {
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
    const int64_t hidden = config_.hidden, q_size = config_.q_size(), kv_size = config_.kv_size();
    LayerWeights w;
    w.input_norm = norm(prefix + "input_layernorm.weight", hidden);
    w.q = projection(attention + "q_proj.weight", q_size, hidden);
    w.k = projection(attention + "k_proj.weight", kv_size, hidden);
    w.v = projection(attention + "v_proj.weight", kv_size, hidden);
    w.o = projection(attention + "o_proj.weight", hidden, q_size);
    if (config_.architecture == Architecture::kQwen3) {
      w.q_norm = norm(attention + "q_norm.weight", config_.head_dim);
      w.k_norm = norm(attention + "k_norm.weight", config_.head_dim);
    }
    if (routes && config_.is_routing(l)) {
      w.router_q = router(attention + "router_q_proj.0.weight", q_size, hidden);
      w.router_k = router(attention + "router_k_proj.0.weight", kv_size, hidden);
    }
    w.post_attention_norm = norm(prefix + "post_attention_layernorm.weight", hidden);
    w.gate = projection(mlp + "gate_proj.weight", config_.intermediate, hidden);
    w.up = projection(mlp + "up_proj.weight", config_.intermediate, hidden);
    w.down = projection(mlp + "down_proj.weight", hidden, config_.intermediate);
    return w;
  }

  /// The tensor of that name, checked: [rows, columns], or [rows] where columns is negative.
  Tensor take(const std::string& name, int64_t rows, int64_t columns) const {
    const auto it = base_.tensors.find(name);
    if (it == base_.tensors.end()) {
      throw Error("is missing, expected " + shape_text(rows, columns), base_.description + ", tensor '" + name + "'",
                  "check that config.json and the weights belong together");
    }
    check(it->second.tensor, rows, columns, it->second.file + ", tensor '" + name + "'");
    return it->second.tensor;
  }

  static void check(const Tensor& t, int64_t rows, int64_t columns, const std::string& where) {
    const bool fits =
        columns < 0 ? t.rank == 1 && t.dim(0) == rows : t.rank == 2 && t.dim(0) == rows && t.dim(1) == columns;
    if (fits && is_weight_type(t.dtype)) return;
    throw Error(
        "expected a floating point or block type of shape " + shape_text(rows, columns) + ", found " + t.describe(),
        where, "check that config.json and the weights belong together");
  }

  Tensor matrix(const std::string& name, int64_t rows, int64_t columns) const { return take(name, rows, columns); }

  Tensor norm(const std::string& name, int64_t n) {
    const Tensor found = take(name, n, -1);
    if (found.dtype == DType::kF32) return found;
    const Tensor converted = own({n});
    dequantise_row(found.dtype, found.data, n, converted.as<float>());
    return converted;
  }

  Tensor projection(const std::string& name, int64_t rows, int64_t columns) {
    const Tensor found = matrix(name, rows, columns);
    if (adapter_ == nullptr) return found;
    const LoraUpdate update = adapter_->find(name, rows, columns);
    if (update.a == nullptr) return found;
    const Tensor merged = own({rows, columns});
    merge_lora(pool_, found, update, adapter_->scale(), merged);
    return merged;
  }

  Tensor router(const std::string& name, int64_t rows, int64_t columns) const {
    const Tensor* trained = adapter_ == nullptr ? nullptr : adapter_->find_tensor(name);
    if (trained == nullptr) return matrix(name, rows, columns);
    check(*trained, rows, columns, adapter_->file().path() + ", tensor '" + name + "'");
    return *trained;
  }

  bool any_router() const {
    for (const int l : config_.memory.routing_layers) {
      for (const char* side : {"router_q_proj", "router_k_proj"}) {
        const std::string name = "model.layers." + std::to_string(l) + ".self_attn." + side + ".0.weight";
        if (base_.tensors.contains(name) || (adapter_ != nullptr && adapter_->find_tensor(name) != nullptr))
          return true;
      }
    }
    return false;
  }

  /// Positive numbers in any unit; the config holds them with mean 1.
  void take_layer_weights() {
    const std::string name = "router_layer_weights";
    const Tensor* found = adapter_ == nullptr ? nullptr : adapter_->find_tensor(name);
    std::string where = found == nullptr ? "" : adapter_->file().path();
    if (const auto it = base_.tensors.find(name); found == nullptr && it != base_.tensors.end()) {
      found = &it->second.tensor;
      where = it->second.file;
    }
    if (found == nullptr) return;
    where += ", tensor '" + name + "'";
    const auto n = static_cast<int64_t>(config_.memory.routing_layers.size());
    check(*found, n, -1, where);
    std::vector<float> weights(static_cast<size_t>(n));
    dequantise_row(found->dtype, found->data, n, weights.data());
    double sum = 0;
    for (const float w : weights) {
      if (!(w > 0 && w < 1e6f)) throw Error("holds a weight that is not positive", where, "train the adapter anew");
      sum += w;
    }
    for (float& w : weights) w = static_cast<float>(w * static_cast<double>(n) / sum);
    config_.memory.layer_weights = std::move(weights);
  }

  void refuse_biases() const {
    for (const auto& [name, entry] : base_.tensors) {
      if (!name.starts_with("model.layers.") || !name.ends_with("_proj.bias")) continue;
      throw Error("projections with a bias are not supported", entry.file + ", tensor '" + printable(name) + "'",
                  "use a Qwen3 or Llama model without biases");
    }
  }

  Tensor own(std::initializer_list<int64_t> shape) {
    const auto memory = std::make_shared<Buffer>();
    base_.owners.push_back(memory);
    return memory->tensor(DType::kF32, shape);
  }

  BaseTensors base_;
  std::shared_ptr<const Adapter> adapter_;
  ModelConfig config_;
  ThreadPool pool_;
};

/// What an encoded bank depends on. Settings of the query alone (top_k, positions) may change under a bank.
std::string fingerprint(const BaseTensors& base, const Adapter* adapter, const std::string& directory) {
  const ModelConfig& c = base.config;
  Xxh3 hash;
  const auto add = [&](const std::string& field) {
    hash.update(field);
    hash.update(std::string_view("\0", 1));
  };
  add("msa model 1");
  for (const int n : {static_cast<int>(c.architecture), c.n_layers, c.hidden, c.n_heads, c.n_kv_heads, c.head_dim,
                      c.intermediate, c.vocab, c.memory.chunk_tokens, static_cast<int>(c.memory.similarity)}) {
    add(std::to_string(n));
  }
  hash.update(&c.rope_theta, sizeof(c.rope_theta));
  hash.update(&c.rms_eps, sizeof(c.rms_eps));
  for (const int layer : c.memory.routing_layers) add(std::to_string(layer));
  for (const std::string& file : base.file_hashes) add(file);
  if (adapter != nullptr) {
    const float scale = adapter->scale();
    hash.update(&scale, sizeof(scale));
    add(xxh3_128_hex(adapter->file().bytes().data(), adapter->file().bytes().size()));
  }
  const auto add_content = [&](const char* name, std::string_view content) {
    add(name);
    add(xxh3_128_hex(content.data(), content.size()));
  };
  const auto has = [&](const char* name) { return !directory.empty() && file_exists(directory + "/" + name); };
  if (has("tokenizer.json")) add_content("tokenizer.json", MappedFile(directory + "/tokenizer.json").text());
  if (has("msa_template.json")) {
    nlohmann::json prompts = read_json_file(directory + "/msa_template.json");
    if (prompts.is_object()) prompts.erase("id_decoding");  // how ids are decoded is a setting of the query
    add_content("msa_template.json", prompts.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  return hash.hex();
}

}  // namespace

ModelWeights load_weights(const WeightSource& source) {
  BaseTensors base = open_base_tensors(source.base);
  const auto adapter = source.adapter.empty() ? nullptr : std::make_shared<const Adapter>(source.adapter);
  const std::string directory = file_exists(source.base) ? "" : source.base;
  const std::string print = fingerprint(base, adapter.get(), directory);
  ModelWeights weights = Assembler(std::move(base), adapter).assemble();
  weights.fingerprint = print;
  return weights;
}

ModelWeights load_weights(const std::string& directory) {
  return load_weights(WeightSource{directory, Adapter::locate(directory)});
}

}  // namespace msa
