#include "model/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "io/gguf.h"
#include "io/json_file.h"
#include "io/text.h"

namespace msa {
namespace {

using nlohmann::json;

// Far above any model there is; products of two of them fit in an int.
constexpr int kMaxLayers = 1024;
constexpr int kMaxWidth = 1 << 20;
constexpr int kMaxHeads = 4096;
constexpr int kMaxHeadDim = 4096;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxPositions = 1 << 24;
constexpr int kMaxChunkTokens = 1 << 16;
constexpr int kMaxTopK = 1 << 16;

[[noreturn]] void refuse(const std::string& where, const std::string& problem, const std::string& fix = "") {
  throw Error(problem, where, fix);
}

/// Fields of one JSON object, each checked for its kind and range; null counts as absent.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object_.is_object()) refuse(where_, "is no JSON object");
  }

  std::string at(const char* key) const { return where_ + ", field " + key; }

  const json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  std::optional<int> integer(const char* key, int largest) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number_integer()) refuse(at(key), "is no integer");
    // A negative number read as unsigned is large, hence refused as well.
    const auto n = value->get<uint64_t>();
    if (n < 1 || n > static_cast<uint64_t>(largest)) {
      refuse(at(key), "is " + value->dump() + ", expected 1 to " + std::to_string(largest));
    }
    return static_cast<int>(n);
  }

  int need_integer(const char* key, int largest) const {
    const auto value = integer(key, largest);
    if (!value) refuse(at(key), "is missing");
    return *value;
  }

  std::optional<float> positive(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number()) refuse(at(key), "is no number");
    const auto x = static_cast<float>(value->get<double>());
    if (!std::isfinite(x) || x <= 0) refuse(at(key), "is " + value->dump() + ", expected a positive number");
    return x;
  }

  bool flag(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_boolean()) refuse(at(key), "is neither true nor false");
    return value->get<bool>();
  }

  std::optional<std::string> text(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) refuse(at(key), "is no string");
    return value->get<std::string>();
  }

 private:
  const json& object_;
  std::string where_;
};

Architecture read_architecture(const Fields& fields) {
  std::string name = fields.text("model_type").value_or("");
  if (const json* list = fields.find("architectures")) {
    if (!list->is_array() || list->size() != 1 || !(*list)[0].is_string()) {
      refuse(fields.at("architectures"), "is no list of one name");
    }
    name = (*list)[0].get<std::string>();
  }
  for (const char* known : {"MSAForCausalLM", "Qwen3ForCausalLM", "msa", "qwen3"}) {
    if (name == known) return Architecture::kQwen3;
  }
  for (const char* known : {"LlamaForCausalLM", "llama"}) {
    if (name == known) return Architecture::kLlama;
  }
  refuse(fields.at("architectures"), "names the unsupported architecture '" + printable(name) + "'",
         "use a model of MSAForCausalLM, Qwen3ForCausalLM or LlamaForCausalLM");
}

/// Refuses everything that would change the forward pass in a way the engine does not compute.
void refuse_unsupported(const Fields& fields) {
  for (const char* key : {"attention_bias", "mlp_bias", "use_sliding_window"}) {
    if (fields.flag(key)) refuse(fields.at(key), "is true, which is not supported");
  }
  const std::string activation = fields.text("hidden_act").value_or("silu");
  if (activation != "silu")
    refuse(fields.at("hidden_act"), "is '" + printable(activation) + "', only silu is supported");
  if (fields.positive("partial_rotary_factor").value_or(1.0f) != 1.0f) {
    refuse(fields.at("partial_rotary_factor"), "is not 1, which is not supported");
  }
}

float read_rope_theta(const Fields& fields, const std::string& where) {
  std::optional<float> theta = fields.positive("rope_theta");
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const json* value = fields.find(key);
    if (value == nullptr) continue;
    const Fields rope(*value, where + ", field " + key);
    for (const char* kind : {"rope_type", "type"}) {
      const std::string type = rope.text(kind).value_or("default");
      if (type != "default") {
        refuse(rope.at(kind), "is '" + printable(type) + "', only the default rotary embedding is supported");
      }
    }
    if (rope.positive("partial_rotary_factor").value_or(1.0f) != 1.0f) {
      refuse(rope.at("partial_rotary_factor"), "is not 1, which is not supported");
    }
    if (!theta) theta = rope.positive("rope_theta");
  }
  return theta.value_or(10000.0f);
}

std::vector<int> upper_half(int n_layers) {
  std::vector<int> layers(static_cast<size_t>(n_layers - n_layers / 2));
  std::iota(layers.begin(), layers.end(), n_layers / 2);
  return layers;
}

std::vector<int> split_integers(const std::string& text, const std::string& where) {
  std::vector<int> numbers;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at != end) {
    while (at != end && *at == ' ') ++at;
    int n = 0;
    const auto [rest, error] = std::from_chars(at, end, n);
    if (error != std::errc()) refuse(where, "is '" + printable(text) + "', expected numbers with commas between");
    numbers.push_back(n);
    at = rest;
    while (at != end && *at == ' ') ++at;
    if (at == end) break;
    if (*at++ != ',' || at == end) refuse(where, "is '" + printable(text) + "', expected numbers with commas between");
  }
  return numbers;
}

std::vector<int> read_routing_layers(const Fields& fields, int n_layers) {
  const json* value = fields.find("router_layer_idx");
  const std::string where = fields.at("router_layer_idx");
  std::vector<int> layers;
  if (value == nullptr) return upper_half(n_layers);
  if (value->is_string()) {
    layers = split_integers(value->get<std::string>(), where);
  } else if (value->is_array() &&
             std::all_of(value->begin(), value->end(), [](const json& n) { return n.is_number_integer(); })) {
    for (const json& n : *value) {
      layers.push_back(static_cast<int>(std::clamp<int64_t>(n.get<int64_t>(), -1, kMaxLayers)));
    }
  } else {
    refuse(where, "is neither a string like \"3,4,5\" nor a list of integers");
  }
  if (layers.empty()) return upper_half(n_layers);
  std::sort(layers.begin(), layers.end());
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i] < 0 || layers[i] >= n_layers) {
      refuse(where, "names a layer outside 0 to " + std::to_string(n_layers - 1));
    }
    if (i > 0 && layers[i] == layers[i - 1]) refuse(where, "names layer " + std::to_string(layers[i]) + " twice");
  }
  return layers;
}

RouterSimilarity read_similarity(const Fields& fields) {
  if (const auto name = fields.text("router_similarity")) {
    if (*name == "cosine") return RouterSimilarity::kCosine;
    if (*name == "scaled_dot") return RouterSimilarity::kScaledDot;
    refuse(fields.at("router_similarity"), "is '" + printable(*name) + "'", "use cosine or scaled_dot");
  }
  const std::string method = fields.text("aux_loss_method").value_or("INFONCE");
  const bool cosine = method == "INFONCE" || method == "INFONCE_DECOUPLE";
  return cosine ? RouterSimilarity::kCosine : RouterSimilarity::kScaledDot;
}

void refuse_other_reductions(const Fields& fields) {
  const std::pair<const char*, const char*> expected[] = {{"head_reduce_method", "mean"},
                                                          {"query_reduce_method", "max"},
                                                          {"chunk_reduce_method", "max"},
                                                          {"decouple_pooling_mode", "mean"}};
  for (const auto& [key, method] : expected) {
    const std::string found = fields.text(key).value_or(method);
    if (found != method) refuse(fields.at(key), "is '" + printable(found) + "', only " + method + " is supported");
  }
}

MemoryConfig read_memory(const json* object, const std::string& where, int n_layers) {
  static const json kNone = json::object();
  const Fields fields(object == nullptr ? kNone : *object, where);
  MemoryConfig memory;
  memory.routing_layers = read_routing_layers(fields, n_layers);
  memory.chunk_tokens = fields.integer("pooling_kernel_size", kMaxChunkTokens).value_or(memory.chunk_tokens);
  memory.top_k_documents = fields.integer("top_k_docs", kMaxTopK).value_or(memory.top_k_documents);
  memory.similarity = read_similarity(fields);
  refuse_other_reductions(fields);
  return memory;
}

void check_shape(const ModelConfig& c, const std::string& where) {
  if (c.n_heads % c.n_kv_heads != 0) {
    refuse(where, "its " + std::to_string(c.n_heads) + " query heads are no multiple of its " +
                      std::to_string(c.n_kv_heads) + " key/value heads");
  }
  if (c.head_dim % 2 != 0) refuse(where, "its head size " + std::to_string(c.head_dim) + " is odd");
}

int default_head_dim(const ModelConfig& c, const std::string& where) {
  if (c.hidden % c.n_heads != 0) {
    refuse(where, "its hidden size " + std::to_string(c.hidden) + " is no multiple of its " +
                      std::to_string(c.n_heads) + " heads, and head_dim is not given");
  }
  return c.hidden / c.n_heads;
}

/// Metadata of a GGUF file under the prefix of its architecture.
class GgufFields {
 public:
  GgufFields(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  std::string key(const char* name) const { return prefix_ + name; }
  std::string at(const char* name) const { return file_.path() + ", metadata key '" + key(name) + "'"; }

  std::optional<int> integer(const char* name, int largest) const {
    const auto value = file_.integer(key(name));
    if (value && (*value < 1 || *value > largest)) {
      refuse(at(name), "is " + std::to_string(*value) + ", expected 1 to " + std::to_string(largest));
    }
    return value ? std::optional<int>(static_cast<int>(*value)) : std::nullopt;
  }

  int need_integer(const char* name, int largest) const {
    const auto value = integer(name, largest);
    if (!value) refuse(at(name), "is missing");
    return *value;
  }

  std::optional<float> positive(const char* name) const {
    const auto value = file_.number(key(name));
    if (!value) return std::nullopt;
    const auto x = static_cast<float>(*value);
    if (!std::isfinite(x) || x <= 0) refuse(at(name), "is no positive number");
    return x;
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

void refuse_unsupported(const GgufFile& file, const GgufFields& fields, int head_dim) {
  const std::string scaling(file.string(fields.key("rope.scaling.type")).value_or("none"));
  if (scaling != "none") {
    refuse(fields.at("rope.scaling.type"),
           "is '" + printable(scaling) + "', only the default rotary embedding is supported");
  }
  for (const char* name : {"rope.dimension_count", "attention.value_length"}) {
    const auto n = fields.integer(name, kMaxHeadDim);
    if (n && *n != head_dim) {
      refuse(fields.at(name), "is " + std::to_string(*n) + ", expected the head size " + std::to_string(head_dim));
    }
  }
  if (file.integer(fields.key("expert_count")).value_or(0) != 0) {
    refuse(fields.at("expert_count"), "is not 0: mixtures of experts are not supported");
  }
}

}  // namespace

bool ModelConfig::is_routing(int layer) const {
  return std::binary_search(memory.routing_layers.begin(), memory.routing_layers.end(), layer);
}

ModelConfig read_config(const std::string& path) {
  const json root = read_json_file(path);
  const Fields fields(root, path);
  ModelConfig c;
  c.architecture = read_architecture(fields);
  refuse_unsupported(fields);
  c.n_layers = fields.need_integer("num_hidden_layers", kMaxLayers);
  c.hidden = fields.need_integer("hidden_size", kMaxWidth);
  c.n_heads = fields.need_integer("num_attention_heads", kMaxHeads);
  c.n_kv_heads = fields.integer("num_key_value_heads", kMaxHeads).value_or(c.n_heads);
  const auto head_dim = fields.integer("head_dim", kMaxHeadDim);
  c.head_dim = head_dim ? *head_dim : default_head_dim(c, path);
  c.intermediate = fields.need_integer("intermediate_size", kMaxWidth);
  c.vocab = fields.need_integer("vocab_size", kMaxVocab);
  c.max_positions = fields.need_integer("max_position_embeddings", kMaxPositions);
  c.rope_theta = read_rope_theta(fields, path);
  c.rms_eps = fields.positive("rms_norm_eps").value_or(1e-6f);
  c.tied_embeddings = fields.flag("tie_word_embeddings");
  check_shape(c, path);
  c.memory = read_memory(fields.find("msa_config"), path + ", msa_config", c.n_layers);
  return c;
}

ModelConfig read_config(const GgufFile& file) {
  const std::string name(file.string("general.architecture").value_or(""));
  if (name != "llama" && name != "qwen3") {
    refuse(file.path() + ", metadata key 'general.architecture'",
           "names the unsupported architecture '" + printable(name) + "'", "use a llama or qwen3 file");
  }
  const GgufFields fields(file, name + ".");
  ModelConfig c;
  c.architecture = name == "llama" ? Architecture::kLlama : Architecture::kQwen3;
  c.n_layers = fields.need_integer("block_count", kMaxLayers);
  c.hidden = fields.need_integer("embedding_length", kMaxWidth);
  c.n_heads = fields.need_integer("attention.head_count", kMaxHeads);
  c.n_kv_heads = fields.integer("attention.head_count_kv", kMaxHeads).value_or(c.n_heads);
  const auto head_dim = fields.integer("attention.key_length", kMaxHeadDim);
  c.head_dim = head_dim ? *head_dim : default_head_dim(c, file.path());
  c.intermediate = fields.need_integer("feed_forward_length", kMaxWidth);
  c.max_positions = fields.need_integer("context_length", kMaxPositions);
  c.rope_theta = fields.positive("rope.freq_base").value_or(10000.0f);
  const auto eps = fields.positive("attention.layer_norm_rms_epsilon");
  if (!eps) refuse(fields.at("attention.layer_norm_rms_epsilon"), "is missing");
  c.rms_eps = *eps;
  c.tied_embeddings = file.find("output.weight") == nullptr;
  // The embedding has the final word on the vocabulary: some files pad it beyond the number of tokens.
  const Tensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr) refuse(file.path() + ", tensor 'token_embd.weight'", "is missing");
  if (embedding->rows() > kMaxVocab) refuse(file.path() + ", tensor 'token_embd.weight'", "has too many rows");
  c.vocab = static_cast<int>(embedding->rows());
  refuse_unsupported(file, fields, c.head_dim);
  check_shape(c, file.path());
  c.memory.routing_layers = upper_half(c.n_layers);
  return c;
}

nlohmann::ordered_json config_to_json(const ModelConfig& c) {
  const bool qwen3 = c.architecture == Architecture::kQwen3;
  std::string layers;
  for (const int layer : c.memory.routing_layers) layers += (layers.empty() ? "" : ",") + std::to_string(layer);
  // Through their shortest decimal form, so that 1e-5f does not become 9.999999747378752e-06.
  const auto shortest = [](float x) {
    char text[32];
    *std::to_chars(text, text + sizeof(text) - 1, x).ptr = '\0';
    return std::stod(text);
  };
  return {{"architectures", nlohmann::ordered_json::array({qwen3 ? "MSAForCausalLM" : "LlamaForCausalLM"})},
          {"model_type", qwen3 ? "msa" : "llama"},
          {"vocab_size", c.vocab},
          {"hidden_size", c.hidden},
          {"intermediate_size", c.intermediate},
          {"num_hidden_layers", c.n_layers},
          {"num_attention_heads", c.n_heads},
          {"num_key_value_heads", c.n_kv_heads},
          {"head_dim", c.head_dim},
          {"hidden_act", "silu"},
          {"max_position_embeddings", c.max_positions},
          {"rope_theta", shortest(c.rope_theta)},
          {"rms_norm_eps", shortest(c.rms_eps)},
          {"tie_word_embeddings", c.tied_embeddings},
          {"attention_bias", false},
          {"msa_config",
           {{"router_layer_idx", layers},
            {"pooling_kernel_size", c.memory.chunk_tokens},
            {"top_k_docs", c.memory.top_k_documents},
            {"aux_loss_method", "INFONCE_DECOUPLE"},
            {"router_similarity", c.memory.similarity == RouterSimilarity::kCosine ? "cosine" : "scaled_dot"}}}};
}

}  // namespace msa
