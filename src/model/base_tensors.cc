#include "model/base_tensors.h"

#include <array>
#include <cstring>
#include <filesystem>
#include <optional>
#include <tuple>
#include <utility>

#include "core/buffer.h"
#include "io/checksum.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "io/text.h"

namespace msa {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 17> kLayerNames = {{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
    {"attn_q.bias", "self_attn.q_proj.bias"},
    {"attn_k.bias", "self_attn.k_proj.bias"},
    {"attn_v.bias", "self_attn.v_proj.bias"},
    {"attn_output.bias", "self_attn.o_proj.bias"},
    {"attn_router_q.weight", "self_attn.router_q_proj.0.weight"},
    {"attn_router_k.weight", "self_attn.router_k_proj.0.weight"},
}};

/// Hugging Face name of a GGUF tensor; empty when the forward pass does not know it.
std::string translate(std::string_view name) {
  if (name == "token_embd.weight") return "model.embed_tokens.weight";
  if (name == "output_norm.weight") return "model.norm.weight";
  if (name == "output.weight") return "lm_head.weight";
  if (!name.starts_with("blk.")) return "";
  const size_t dot = name.find('.', 4);
  if (dot == name.npos) return "";
  for (const auto& [gguf, hugging_face] : kLayerNames) {
    if (name.substr(dot + 1) != gguf) continue;
    return "model.layers." + std::string(name.substr(4, dot - 4)) + "." + std::string(hugging_face);
  }
  return "";
}

/// llama GGUF files hold the rows of q and k such that neighbours rotate against each other: row 2i + j of a head is
/// row j·d/2 + i of the Hugging Face order, where the halves do. Rows are whole blocks, so quantised ones move too.
Tensor undo_rotation_order(const Tensor& from, int64_t head_dim, Buffer& memory) {
  memory.reserve(static_cast<size_t>(from.bytes()));
  Tensor to = from;
  to.data = memory.data();
  const auto row_bytes = static_cast<size_t>(from.dense_row_bytes());
  for (int64_t row = 0; row < from.rows(); ++row) {
    const int64_t head = row / head_dim, inside = row % head_dim;
    const int64_t target = head * head_dim + inside % 2 * (head_dim / 2) + inside / 2;
    std::memcpy(to.row<char>(target), from.row<char>(row), row_bytes);
  }
  return to;
}

/// What the shapes of the tensors do not tell.
auto attention_shape(const ModelConfig& c) {
  return std::make_tuple(c.architecture, c.n_heads, c.n_kv_heads, c.head_dim, c.rope_theta, c.rms_eps);
}

void add_gguf(const std::string& path, const std::optional<ModelConfig>& config, BaseTensors& base) {
  const auto file = std::make_shared<GgufFile>(GgufFile::open(path));
  base.owners.push_back(file);
  base.file_hashes.push_back(xxh3_128_hex(file->bytes().data(), file->bytes().size()));
  const ModelConfig own = read_config(*file);
  base.config = config.value_or(own);
  if (config && attention_shape(own) != attention_shape(*config)) {
    throw Error("architecture, head counts, head size, rope_theta or rms_norm_eps differ from those of config.json",
                path, "use the config.json that belongs to this file");
  }
  if (file->find("rope_freqs.weight") != nullptr) {
    throw Error("scales the rotary embedding, which is not supported", path + ", tensor 'rope_freqs.weight'");
  }
  const bool interleaved = own.architecture == Architecture::kLlama;
  for (const auto& [gguf_name, view] : file->tensors()) {
    const std::string name = translate(gguf_name);
    if (name.empty()) continue;
    Tensor tensor = view;
    const bool rotated = gguf_name.ends_with(".attn_q.weight") || gguf_name.ends_with(".attn_k.weight");
    if (interleaved && rotated && tensor.rank == 2 && tensor.rows() % own.head_dim == 0) {
      const auto memory = std::make_shared<Buffer>();
      tensor = undo_rotation_order(view, own.head_dim, *memory);
      base.owners.push_back(memory);
    }
    base.tensors[name] = {tensor, path};
  }
}

void add_safetensors(const std::string& directory, BaseTensors& base) {
  for (SafetensorsFile& opened : open_safetensors_directory(directory)) {
    const auto file = std::make_shared<SafetensorsFile>(std::move(opened));
    base.owners.push_back(file);
    base.file_hashes.push_back(xxh3_128_hex(file->bytes().data(), file->bytes().size()));
    for (const auto& [name, tensor] : file->tensors()) base.tensors[name] = {tensor, file->path()};
  }
}

}  // namespace

BaseTensors open_base_tensors(const std::string& path) {
  BaseTensors base;
  base.description = path;
  if (path.ends_with(".gguf") && file_exists(path)) {
    add_gguf(path, std::nullopt, base);
    return base;
  }
  if (!std::filesystem::is_directory(path)) throw Error("is no model directory", path, "name a folder with a model");
  const std::string config_path = path + "/config.json";
  if (file_exists(path + "/base.gguf")) {
    const bool has_config = file_exists(config_path);
    add_gguf(path + "/base.gguf", has_config ? std::optional(read_config(config_path)) : std::nullopt, base);
  } else if (file_exists(path + "/model.safetensors") || file_exists(path + "/model.safetensors.index.json")) {
    base.config = read_config(config_path);
    add_safetensors(path, base);
  } else {
    throw Error("holds no weights: expected base.gguf, model.safetensors or model.safetensors.index.json", path,
                "fetch the weights of this model first");
  }
  return base;
}

}  // namespace msa
