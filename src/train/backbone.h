// The frozen model and what is trained on top of it: low-rank updates of its matrices, or all of it, and the routers.
#pragma once
#include <torch/torch.h>

#include <map>
#include <string>
#include <vector>

#include "core/context.h"
#include "model/weights.h"
#include "train/network.h"
#include "train/parameters.h"

namespace msa::train {

struct TrainedParts {
  bool all_weights = false;  // train every tensor itself; else low-rank updates and routers
  int rank = 32;
  double alpha = 64;                 // the update is alpha / rank · B·A
  std::vector<int> layers;           // with an update; empty: all
  std::vector<std::string> modules;  // of "q_proj" … "down_proj"; empty: all seven
  bool routers = true;
  bool layer_weights = false;  // of the layers' scores in their mean
};

class Backbone {
 public:
  /// `base`: a model directory or .gguf file, its own adapter left aside; `start`: adapter to go on from, or "".
  /// Routers that neither has begin as copies of their layer's q_proj and k_proj.
  /// Throws Error where files or names do not fit.
  Backbone(const std::string& base, const std::string& start, const TrainedParts& parts, torch::Dtype type,
           torch::Device device, uint64_t seed);

  /// The same over weights that are at hand.
  Backbone(ModelWeights weights, const std::string& start, const TrainedParts& parts, torch::Dtype type,
           torch::Device device, uint64_t seed);

  const ModelConfig& config() const { return weights_.config; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// The weights of this step: base + alpha / rank · B·A, in the type of the computation; differentiable.
  NetworkTensors effective() const;

  /// Writes adapter.safetensors and adapter_config.json (PEFT names, float16), or with all_weights a whole
  /// model.safetensors and config.json (bfloat16 or float32), into `directory`. Layer weights that are trained, or
  /// came with `start`, stand there as router_layer_weights in float32.
  void export_to(const std::string& directory, DType type) const;

 private:
  void add_layer(int layer, Context& context);
  /// A matrix of the backbone: frozen, frozen with an update, or trained itself.
  void add_matrix(Context& context, const std::string& name, const msa::Tensor& view, bool has_update);
  void add_vector(Context& context, const std::string& name, const msa::Tensor& view);
  void add_router(Context& context, const std::string& name, const msa::Tensor& given, const msa::Tensor& copy_of);
  void add_layer_weights(const std::string& start);
  bool has_update(const std::string& module, int layer) const;
  Tensor matrix(const std::string& name) const;
  Tensor vector(const std::string& name) const;
  Tensor layer_weights() const;  // float32 [routing layers], sum 1
  bool weighs_layers() const;    // trained, or given at the start
  void export_adapter(const std::string& directory, DType type) const;
  void export_model(const std::string& directory, DType type) const;

  ModelWeights weights_;  // views of the files
  TrainedParts parts_;
  torch::Dtype type_;
  torch::Device device_;
  at::Generator random_;
  std::map<std::string, Tensor> frozen_;  // by Hugging Face name; float32 where an update is added, else type_
  std::map<std::string, Tensor> start_;   // tensors of the adapter to go on from
  Parameters parameters_;
};

}  // namespace msa::train
