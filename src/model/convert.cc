#include "model/convert.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"
#include "io/file.h"
#include "io/gguf.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/adapter.h"
#include "model/convert_tokenizer.h"
#include "model/weights.h"

namespace msa {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// Where the parts of the source lie; "" where there is none.
struct Source {
  std::string directory;
  std::string gguf;
  std::string adapter;

  explicit Source(const ConvertOptions& options) : adapter(options.adapter) {
    if (file_exists(options.source)) {
      gguf = options.source;
    } else {
      directory = options.source;
      if (file_exists(directory + "/base.gguf")) gguf = directory + "/base.gguf";
      if (adapter.empty()) adapter = Adapter::locate(directory);
    }
  }

  /// A file of the source directory, or of the adapter's; "" when neither has it.
  std::string find(const std::string& name) const {
    const std::string beside_adapter = fs::is_directory(adapter) ? adapter : fs::path(adapter).parent_path().string();
    for (const std::string& folder : {directory, beside_adapter}) {
      if (!folder.empty() && file_exists(folder + "/" + name)) return folder + "/" + name;
    }
    return "";
  }
};

void prepare_output(const std::string& output) {
  std::error_code failure;
  fs::create_directories(output, failure);
  if (failure) throw Error("cannot be created: " + failure.message(), output, "choose another folder");
  const bool empty = fs::is_empty(output, failure);
  if (failure || !empty) throw Error("is not empty", output, "choose a folder that does not exist yet");
}

std::vector<NamedTensor> all_tensors(const ModelWeights& weights) {
  std::vector<NamedTensor> tensors = {{"model.embed_tokens.weight", weights.embedding}};
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    if (!tensor.empty()) tensors.emplace_back(name + ".weight", tensor);
  };
  for (size_t l = 0; l < weights.layers.size(); ++l) {
    const LayerWeights& w = weights.layers[l];
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
    add(prefix + "input_layernorm", w.input_norm);
    add(attention + "q_proj", w.q);
    add(attention + "k_proj", w.k);
    add(attention + "v_proj", w.v);
    add(attention + "o_proj", w.o);
    add(attention + "q_norm", w.q_norm);
    add(attention + "k_norm", w.k_norm);
    add(attention + "router_q_proj.0", w.router_q);
    add(attention + "router_k_proj.0", w.router_k);
    add(prefix + "post_attention_layernorm", w.post_attention_norm);
    add(mlp + "gate_proj", w.gate);
    add(mlp + "up_proj", w.up);
    add(mlp + "down_proj", w.down);
  }
  add("model.norm", weights.final_norm);
  if (!weights.config.tied_embeddings) add("lm_head", weights.lm_head);
  const std::vector<float>& layers = weights.config.memory.layer_weights;
  if (!layers.empty()) {
    tensors.emplace_back("router_layer_weights",
                         Tensor::of_const(layers.data(), DType::kF32, {static_cast<int64_t>(layers.size())}));
  }
  return tensors;
}

const char* torch_name(DType type) {
  if (type == DType::kF32) return "float32";
  return type == DType::kF16 ? "float16" : "bfloat16";
}

void write_json(const std::string& path, const ordered_json& value) {
  try {
    write_file_atomically(path, value.dump(1) + "\n");
  } catch (const nlohmann::json::exception&) {
    throw Error("cannot be written: the source holds text that is no valid UTF-8", path);
  }
}

/// The source's own config.json where there is one, with whatever else it says; else one made of the GGUF metadata.
void write_config(const Source& source, const ModelConfig& config, const ConvertOptions& options) {
  ordered_json json = config_to_json(config);
  const std::string path = source.directory + "/config.json";
  if (!source.directory.empty() && file_exists(path)) {
    const ordered_json memory = json["msa_config"];
    json = read_json_file(path);
    if (!json.contains("msa_config") || json["msa_config"].is_null()) json["msa_config"] = memory;
  }
  json["torch_dtype"] = torch_name(options.dtype);
  write_json(options.output + "/config.json", json);
}

void write_tokenizer(const Source& source, const std::string& output) {
  const std::string existing = source.find("tokenizer.json");
  if (!existing.empty()) {
    write_file_atomically(output + "/tokenizer.json", MappedFile(existing).text());
  } else if (!source.gguf.empty()) {
    write_json(output + "/tokenizer.json", tokenizer_to_json(GgufFile::open(source.gguf)));
  }
}

void write_generation_config(const Source& source, const std::string& output) {
  const std::string existing = source.find("generation_config.json");
  if (!existing.empty()) {
    write_file_atomically(output + "/generation_config.json", MappedFile(existing).text());
  } else if (!source.gguf.empty()) {
    const GgufFile file = GgufFile::open(source.gguf);
    ordered_json json = ordered_json::object();
    for (const char* token : {"bos", "eos"}) {
      const auto id = file.integer(std::string("tokenizer.ggml.") + token + "_token_id");
      if (id) json[std::string(token) + "_token_id"] = *id;
    }
    write_json(output + "/generation_config.json", json);
  }
}

}  // namespace

void convert(const ConvertOptions& options) {
  if (options.dtype != DType::kF32 && options.dtype != DType::kF16 && options.dtype != DType::kBF16) {
    throw Error(std::string("models cannot be written as ") + traits(options.dtype).name, "--dtype",
                "use f32, f16 or bf16");
  }
  const Source source(options);
  const ModelWeights weights = load_weights(WeightSource{options.source, source.adapter});
  prepare_output(options.output);
  write_safetensors_as(options.dtype, options.output + "/model.safetensors", all_tensors(weights), {{"format", "pt"}});
  write_tokenizer(source, options.output);
  write_generation_config(source, options.output);
  const std::string prompts = source.find("msa_template.json");
  if (!prompts.empty()) write_file_atomically(options.output + "/msa_template.json", MappedFile(prompts).text());
  write_config(source, weights.config, options);
}

}  // namespace msa
