// A PEFT LoRA adapter with router projections: what our training writes on top of a frozen backbone.
#pragma once
#include <memory>
#include <string>

#include "core/thread_pool.h"
#include "io/safetensors.h"

namespace msa {

/// The low-rank update of one matrix: W + scale · B·A.
struct LoraUpdate {
  const Tensor* a = nullptr;  // [r, in]
  const Tensor* b = nullptr;  // [out, r]
};

class Adapter {
 public:
  /// `path`: a safetensors file, or a folder with adapter.safetensors or adapter_model.safetensors in it;
  /// adapter_config.json lies beside. Throws Error on anything that this engine would compute differently from PEFT.
  explicit Adapter(const std::string& path);

  /// Update of the matrix of that Hugging Face name ("model.layers.0.self_attn.q_proj.weight"); Error unless its shapes
  /// fit [out, in]. Empty when the adapter leaves the matrix alone.
  LoraUpdate find(const std::string& matrix, int64_t out, int64_t in) const;
  /// A whole tensor of that name (router projections, router_layer_weights), or null.
  const Tensor* find_tensor(const std::string& name) const;

  float scale() const { return scale_; }
  int rank() const { return rank_; }
  const SafetensorsFile& file() const { return file_; }

  /// The adapter file in a model directory, or "".
  static std::string locate(const std::string& directory);

 private:
  void read_settings(const std::string& path);
  void refuse_unknown_tensors() const;

  SafetensorsFile file_;
  int rank_ = 0;
  float scale_ = 0;  // lora_alpha / r, or lora_alpha / sqrt(r)
};

/// out [rows, in] F32 = base [rows, in] of any floating or block type + scale · b [rows, r] · a [r, in].
void merge_lora(ThreadPool& pool, const Tensor& base, const LoraUpdate& update, float scale, const Tensor& out);

}  // namespace msa
