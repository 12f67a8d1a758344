#include "train/backbone.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/file.h"
#include "io/safetensors.h"
#include "model/adapter.h"
#include "ops/linear.h"

namespace msa::train {
namespace {

namespace fs = std::filesystem;

// Names of the PEFT library.
constexpr const char* kPeftPrefix = "base_model.model.";
constexpr const char* kLayerWeights = "router_layer_weights";
// What is trained: the weights are its softmax, so they stay positive and their sum 1.
constexpr const char* kLayerLogits = "router_layer_logits";

const std::vector<std::string>& all_modules() {
  static const std::vector<std::string> names{"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                              "gate_proj", "up_proj", "down_proj"};
  return names;
}

std::string layer_prefix(int layer) { return "model.layers." + std::to_string(layer) + "."; }

/// …q_proj.weight → …q_proj.lora_A.weight
std::string update_name(const std::string& matrix, const std::string& part) {
  return matrix.substr(0, matrix.size() - std::string("weight").size()) + part + ".weight";
}

Tensor to_float(Context& context, const msa::Tensor& view) {
  const bool is_vector = view.rank == 1;
  const msa::Tensor rows = is_vector ? view.reshape({view.rows(), 1}) : view;
  Tensor out = torch::empty({rows.rows(), rows.dim(1)}, torch::kFloat);
  dequantise_rows(context, rows, 0, rows.rows(),
                  msa::Tensor(out.data_ptr<float>(), DType::kF32, {rows.rows(), rows.dim(1)}));
  return is_vector ? out.flatten() : out;
}

/// Tensors to be written, and the memory that they stand in.
class Stored {
 public:
  void add(const std::string& name, const Tensor& t, DType type) {
    const auto form = type == DType::kF16 ? torch::kHalf : type == DType::kBF16 ? torch::kBFloat16 : torch::kFloat;
    held_.push_back(t.detach().to(torch::kCPU, form).contiguous());
    const Tensor& kept = held_.back();
    tensors_.emplace_back(name, kept.dim() == 1 ? msa::Tensor(kept.data_ptr(), type, {kept.size(0)})
                                                : msa::Tensor(kept.data_ptr(), type, {kept.size(0), kept.size(1)}));
  }
  void write(const std::string& path) const { write_safetensors(path, tensors_, {{"format", "pt"}}); }

 private:
  std::vector<Tensor> held_;
  std::vector<NamedTensor> tensors_;
};

void check_parts(const TrainedParts& parts, const ModelConfig& config) {
  if (!parts.all_weights && parts.rank < 1) {
    throw Error("the rank of the updates must be positive", "recipe, model.rank", "32 is usual");
  }
  for (const std::string& m : parts.modules) {
    if (std::find(all_modules().begin(), all_modules().end(), m) != all_modules().end()) continue;
    throw Error("unknown module '" + m + "'", "recipe, model.modules", "use names like q_proj or down_proj");
  }
  for (const int layer : parts.layers) {
    if (layer >= 0 && layer < config.n_layers) continue;
    throw Error("there is no layer " + std::to_string(layer), "recipe, model.layers",
                "this model has the layers 0 to " + std::to_string(config.n_layers - 1));
  }
}

/// Every tensor of an adapter, names without the PEFT prefix, float32; refused unless it fits what is trained.
std::map<std::string, Tensor> read_start(Context& context, const std::string& path, const TrainedParts& parts) {
  std::map<std::string, Tensor> out;
  if (path.empty()) return out;
  const Adapter adapter(path);
  const double scale = parts.alpha / parts.rank;
  if (adapter.rank() != 0 && (adapter.rank() != parts.rank || std::abs(adapter.scale() - scale) > 1e-6 * scale)) {
    throw Error("its rank is " + std::to_string(adapter.rank()) + " and its scale " + std::to_string(adapter.scale()) +
                    ", the recipe asks for " + std::to_string(parts.rank) + " and " + std::to_string(scale),
                path, "set model.rank and model.alpha to those of the adapter");
  }
  for (const auto& [name, tensor] : adapter.file().tensors()) {
    const std::string plain = name.starts_with(kPeftPrefix) ? name.substr(std::string(kPeftPrefix).size()) : name;
    out[plain] = to_float(context, tensor);
  }
  return out;
}

}  // namespace

Backbone::Backbone(const std::string& base, const std::string& start, const TrainedParts& parts, torch::Dtype type,
                   torch::Device device, uint64_t seed)
    : Backbone(load_weights(WeightSource{base, ""}), start, parts, type, device, seed) {}

Backbone::Backbone(ModelWeights weights, const std::string& start, const TrainedParts& parts, torch::Dtype type,
                   torch::Device device, uint64_t seed)
    : weights_(std::move(weights)),
      parts_(parts),
      type_(type),
      device_(device),
      random_(at::make_generator<at::CPUGeneratorImpl>(seed)) {
  torch::NoGradGuard no_gradients;
  check_parts(parts_, weights_.config);
  Context context;
  start_ = read_start(context, start, parts_);
  add_matrix(context, "model.embed_tokens.weight", weights_.embedding, /*has_update=*/false);
  for (int layer = 0; layer < config().n_layers; ++layer) add_layer(layer, context);
  add_vector(context, "model.norm.weight", weights_.final_norm);
  if (!config().tied_embeddings) add_matrix(context, "lm_head.weight", weights_.lm_head, /*has_update=*/false);
  add_layer_weights(start);
  parameters_.finish(device_);
}

void Backbone::add_layer(int layer, Context& context) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const std::string prefix = layer_prefix(layer), attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const auto matrix = [&](const std::string& folder, const char* module, const msa::Tensor& view) {
    add_matrix(context, folder + module + ".weight", view, has_update(module, layer));
  };
  add_vector(context, prefix + "input_layernorm.weight", w.input_norm);
  add_vector(context, prefix + "post_attention_layernorm.weight", w.post_attention_norm);
  matrix(attention, "q_proj", w.q);
  matrix(attention, "k_proj", w.k);
  matrix(attention, "v_proj", w.v);
  matrix(attention, "o_proj", w.o);
  if (!w.q_norm.empty()) add_vector(context, attention + "q_norm.weight", w.q_norm);
  if (!w.k_norm.empty()) add_vector(context, attention + "k_norm.weight", w.k_norm);
  matrix(mlp, "gate_proj", w.gate);
  matrix(mlp, "up_proj", w.up);
  matrix(mlp, "down_proj", w.down);
  if (!config().is_routing(layer)) return;
  add_router(context, attention + "router_q_proj.0.weight", w.router_q, w.q);
  add_router(context, attention + "router_k_proj.0.weight", w.router_k, w.k);
}

bool Backbone::has_update(const std::string& module, int layer) const {
  const auto listed = [](const auto& list, const auto& item) {
    return list.empty() || std::find(list.begin(), list.end(), item) != list.end();
  };
  return listed(parts_.modules, module) && listed(parts_.layers, layer);
}

void Backbone::add_matrix(Context& context, const std::string& name, const msa::Tensor& view, bool has_update) {
  const Tensor w = to_float(context, view);
  if (parts_.all_weights) return parameters_.add("weights", name, w);
  if (!has_update) {
    frozen_[name] = w.to(device_, type_);
    return;
  }
  frozen_[name] = w.to(device_);
  const std::string a = update_name(name, "lora_A"), b = update_name(name, "lora_B");
  const int64_t out = w.size(0), in = w.size(1);
  Tensor start_a = torch::randn({parts_.rank, in}, random_) / std::sqrt(static_cast<double>(in));
  Tensor start_b = torch::zeros({out, parts_.rank});
  if (start_.contains(a) && start_.contains(b)) {
    start_a = start_.at(a);
    start_b = start_.at(b);
  }
  parameters_.add("adapter", a, start_a);
  parameters_.add("adapter", b, start_b);
}

void Backbone::add_vector(Context& context, const std::string& name, const msa::Tensor& view) {
  const Tensor w = to_float(context, view);
  if (parts_.all_weights)
    parameters_.add("weights", name, w);
  else
    frozen_[name] = w.to(device_);
}

void Backbone::add_router(Context& context, const std::string& name, const msa::Tensor& given,
                          const msa::Tensor& copy_of) {
  const auto started = start_.find(name);
  const Tensor w = started != start_.end() ? started->second : to_float(context, given.empty() ? copy_of : given);
  if (parts_.all_weights || parts_.routers)
    parameters_.add("router", name, w);
  else
    frozen_[name] = w.to(device_, type_);
}

void Backbone::add_layer_weights(const std::string& start) {
  const auto n = static_cast<int64_t>(config().memory.routing_layers.size());
  Tensor weights = torch::ones({n});
  const auto given = start_.find(kLayerWeights);
  if (given != start_.end()) {
    weights = given->second;
    if (weights.numel() != n || !((weights > 0) & weights.isfinite()).all().item<bool>()) {
      throw Error("must hold " + std::to_string(n) + " positive numbers, one for each routing layer",
                  start + ", tensor " + kLayerWeights, "use an adapter of this base model");
    }
  }
  weights = weights / weights.sum();
  if (parts_.layer_weights) {
    parameters_.add("layers", kLayerLogits, weights.log());
  } else {
    frozen_[kLayerWeights] = weights.to(device_);
  }
}

Tensor Backbone::layer_weights() const {
  return parameters_.contains(kLayerLogits) ? torch::softmax(parameters_.get(kLayerLogits), 0)
                                            : frozen_.at(kLayerWeights);
}

bool Backbone::weighs_layers() const { return parts_.layer_weights || start_.contains(kLayerWeights); }

Tensor Backbone::matrix(const std::string& name) const {
  if (parameters_.contains(name)) return parameters_.get(name).to(type_);
  const std::string a = update_name(name, "lora_A");
  const Tensor& base = frozen_.at(name);
  if (!parameters_.contains(a)) return base;
  const double scale = parts_.alpha / parts_.rank;
  return torch::addmm(base, parameters_.get(update_name(name, "lora_B")), parameters_.get(a), 1, scale).to(type_);
}

Tensor Backbone::vector(const std::string& name) const {
  if (parameters_.contains(name)) return parameters_.get(name);
  const auto found = frozen_.find(name);
  return found == frozen_.end() ? Tensor() : found->second;
}

NetworkTensors Backbone::effective() const {
  NetworkTensors w;
  w.embedding = matrix("model.embed_tokens.weight");
  w.final_norm = vector("model.norm.weight");
  w.lm_head = config().tied_embeddings ? w.embedding : matrix("lm_head.weight");
  for (int layer = 0; layer < config().n_layers; ++layer) {
    const std::string prefix = layer_prefix(layer), attention = prefix + "self_attn.", mlp = prefix + "mlp.";
    LayerTensors l;
    l.input_norm = vector(prefix + "input_layernorm.weight");
    l.qkv = torch::cat({matrix(attention + "q_proj.weight"), matrix(attention + "k_proj.weight"),
                        matrix(attention + "v_proj.weight")});
    l.o = matrix(attention + "o_proj.weight");
    l.q_norm = vector(attention + "q_norm.weight");
    l.k_norm = vector(attention + "k_norm.weight");
    if (config().is_routing(layer)) {
      l.router_q = matrix(attention + "router_q_proj.0.weight");
      l.router_k = matrix(attention + "router_k_proj.0.weight");
    }
    l.post_attention_norm = vector(prefix + "post_attention_layernorm.weight");
    l.gate_up = torch::cat({matrix(mlp + "gate_proj.weight"), matrix(mlp + "up_proj.weight")});
    l.down = matrix(mlp + "down_proj.weight");
    w.layers.push_back(l);
  }
  w.layer_weights = layer_weights();
  return w;
}

void Backbone::export_to(const std::string& directory, DType type) const {
  fs::create_directories(directory);
  torch::NoGradGuard no_gradients;
  parts_.all_weights ? export_model(directory, type) : export_adapter(directory, type);
}

void Backbone::export_adapter(const std::string& directory, DType type) const {
  Stored stored;
  const auto add = [&](const std::string& name, const Tensor& t) { stored.add(kPeftPrefix + name, t, type); };
  for (const auto& [name, leaf] : parameters_.leaves()) {
    if (name != kLayerLogits) add(name, leaf);
  }
  for (const auto& [name, tensor] : frozen_) {
    if (name.find(".router_") != std::string::npos) add(name, tensor);
  }
  if (weighs_layers()) stored.add(kLayerWeights, layer_weights(), DType::kF32);
  stored.write(directory + "/adapter.safetensors");
  const nlohmann::ordered_json settings = {
      {"peft_type", "LORA"},
      {"r", parts_.rank},
      {"lora_alpha", parts_.alpha},
      {"target_modules", parts_.modules.empty() ? all_modules() : parts_.modules},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"use_rslora", false},
  };
  AtomicFile file(directory + "/adapter_config.json");
  file.write(settings.dump(2) + "\n");
  file.commit();
}

void Backbone::export_model(const std::string& directory, DType type) const {
  Stored stored;
  for (const auto& [name, leaf] : parameters_.leaves()) {
    if (name != kLayerLogits) stored.add(name, leaf, type);
  }
  if (weighs_layers()) stored.add(kLayerWeights, layer_weights(), DType::kF32);
  stored.write(directory + "/model.safetensors");
  AtomicFile file(directory + "/config.json");
  file.write(config_to_json(config()).dump(2) + "\n");
  file.commit();
}

}  // namespace msa::train
