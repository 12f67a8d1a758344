// The tensors of a backbone under their Hugging Face names and in its row order, whatever kind of file holds them.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "model/config.h"

namespace msa {

struct BaseTensor {
  Tensor tensor;
  std::string file;
};

struct BaseTensors {
  ModelConfig config;
  std::map<std::string, BaseTensor> tensors;
  std::vector<std::string> file_hashes;  // xxh3-128 of every weight file
  std::vector<std::shared_ptr<const void>> owners;
  std::string description;  // the file or folder, for messages
};

/// `path`: a model directory (base.gguf, model.safetensors or shards; config.json) or a .gguf file, whose metadata then
/// takes the place of config.json.
BaseTensors open_base_tensors(const std::string& path);

}  // namespace msa
