// Any model that the engine reads → one model directory in the Hugging Face layout.
#pragma once
#include <string>

#include "core/dtype.h"

namespace msa {

struct ConvertOptions {
  std::string source;          // a model directory or a .gguf file
  std::string adapter;         // file or folder; "" takes the one in the source directory, if any
  std::string output;          // a folder that does not exist or is empty
  DType dtype = DType::kBF16;  // F32, F16 or BF16
};

/// Writes config.json, model.safetensors (adapter merged), tokenizer.json, and generation_config.json and
/// msa_template.json where the source has them. config.json comes last: without it the folder is no model.
void convert(const ConvertOptions& options);

}  // namespace msa
