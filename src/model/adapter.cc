#include "model/adapter.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include "core/error.h"
#include "core/quant.h"
#include "io/json_file.h"
#include "io/text.h"

namespace msa {
namespace {

using nlohmann::json;

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kSuffix = ".weight";
constexpr int kMaxRank = 4096;
constexpr const char* kNames[] = {"adapter.safetensors", "adapter_model.safetensors"};
constexpr std::string_view kModules[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                         "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
constexpr std::string_view kLayerWeights = "router_layer_weights";
constexpr std::string_view kRouters[] = {"self_attn.router_q_proj.0", "self_attn.router_k_proj.0"};

std::string resolve(const std::string& path) {
  if (!std::filesystem::is_directory(path)) return path;
  const std::string found = Adapter::locate(path);
  if (found.empty()) throw Error("holds no adapter.safetensors", path, "name the folder or file of an adapter");
  return found;
}

std::string location(const SafetensorsFile& file, const std::string& name) {
  return file.path() + ", tensor '" + printable(name) + "'";
}

/// Refuses settings of PEFT that change the result and are not computed here.
void refuse_unsupported(const json& root, const std::string& path) {
  const auto is_set = [&](const char* key) {
    const auto it = root.find(key);
    if (it == root.end() || it->is_null()) return false;
    if (it->is_boolean()) return it->get<bool>();
    return !it->empty();
  };
  for (const char* key : {"fan_in_fan_out", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias",
                          "layer_replication", "alora_invocation_tokens"}) {
    if (is_set(key))
      throw Error("is set, which is not supported", path + ", field " + key, "train a plain LoRA adapter");
  }
  const auto text = [&](const char* key, const char* expected) {
    const auto it = root.find(key);
    if (it == root.end() || it->is_null() || *it == expected) return;
    throw Error("is not \"" + std::string(expected) + "\", which is not supported", path + ", field " + key);
  };
  text("peft_type", "LORA");
  text("bias", "none");
}

/// "model.layers.7.mlp.up_proj.lora_A.weight" → "mlp.up_proj.lora_A.weight"; empty when it is no such name.
std::string_view inside_layer(std::string_view name) {
  constexpr std::string_view start = "model.layers.";
  if (!name.starts_with(start)) return {};
  name.remove_prefix(start.size());
  const size_t digits = name.find_first_not_of("0123456789");
  if (digits == 0 || digits == name.npos || name[digits] != '.') return {};
  return name.substr(digits + 1);
}

bool is_known(std::string_view name) {
  if (name == kLayerWeights) return true;
  if (!name.starts_with(kPrefix)) return false;
  const std::string_view rest = inside_layer(name.substr(kPrefix.size()));
  const auto is = [&](std::string_view module, std::string_view tail) {
    return rest.starts_with(module) && rest.substr(module.size()) == tail;
  };
  return std::any_of(std::begin(kModules), std::end(kModules),
                     [&](std::string_view m) { return is(m, ".lora_A.weight") || is(m, ".lora_B.weight"); }) ||
         std::any_of(std::begin(kRouters), std::end(kRouters), [&](std::string_view m) { return is(m, kSuffix); });
}

void check_factor(const SafetensorsFile& file, const std::string& name, const Tensor& found, int64_t rows,
                  int64_t columns) {
  const bool floating = found.dtype == DType::kF32 || found.dtype == DType::kF16 || found.dtype == DType::kBF16;
  if (floating && found.rank == 2 && found.dim(0) == rows && found.dim(1) == columns) return;
  throw Error("expected F32, F16 or BF16 [" + std::to_string(rows) + ", " + std::to_string(columns) + "], found " +
                  found.describe(),
              location(file, name), "use the adapter that belongs to this base model");
}

// The choice of a clone runs before the thread sanitizer has begun, which crashes in it.
#ifdef __SANITIZE_THREAD__
#define MSA_VECTOR_CLONES
#else
#define MSA_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif

/// y [n] += b [rank] · a [rank, n], compiled for the vector width at hand; four rows of `a` in one pass over y.
MSA_VECTOR_CLONES void add_product(float* __restrict y, const float* __restrict b, const float* a, int64_t rank,
                                   int64_t n) {
  int64_t k = 0;
  for (; k + 4 <= rank; k += 4) {
    const float *a0 = a + k * n, *a1 = a0 + n, *a2 = a1 + n, *a3 = a2 + n;
    const float b0 = b[k], b1 = b[k + 1], b2 = b[k + 2], b3 = b[k + 3];
    for (int64_t i = 0; i < n; ++i) y[i] += (b0 * a0[i] + b1 * a1[i]) + (b2 * a2[i] + b3 * a3[i]);
  }
  for (; k < rank; ++k) {
    for (int64_t i = 0; i < n; ++i) y[i] += b[k] * a[k * n + i];
  }
}

}  // namespace

Adapter::Adapter(const std::string& path) : file_(SafetensorsFile::open(resolve(path))) {
  const std::filesystem::path folder = std::filesystem::path(file_.path()).parent_path();
  read_settings((folder / "adapter_config.json").string());
  refuse_unknown_tensors();
}

std::string Adapter::locate(const std::string& directory) {
  for (const char* name : kNames) {
    if (file_exists(directory + "/" + name)) return directory + "/" + name;
  }
  return "";
}

void Adapter::read_settings(const std::string& path) {
  const json root = read_json_file(path);
  if (!root.is_object()) throw Error("is no JSON object", path);
  refuse_unsupported(root, path);
  const auto rank = root.find("r");
  if (rank == root.end() || !rank->is_number_unsigned() || rank->get<uint64_t>() < 1 ||
      rank->get<uint64_t>() > kMaxRank) {
    throw Error("is no rank between 1 and " + std::to_string(kMaxRank), path + ", field r");
  }
  const auto alpha = root.find("lora_alpha");
  if (alpha == root.end() || !alpha->is_number() || !(std::abs(alpha->get<double>()) < 1e6)) {
    throw Error("is no number of ordinary size", path + ", field lora_alpha");
  }
  const auto rslora = root.find("use_rslora");
  rank_ = rank->get<int>();
  const double divisor = rslora != root.end() && *rslora == true ? std::sqrt(static_cast<double>(rank_)) : rank_;
  scale_ = static_cast<float>(alpha->get<double>() / divisor);
}

void Adapter::refuse_unknown_tensors() const {
  for (const auto& [name, tensor] : file_.tensors()) {
    if (!is_known(name)) {
      throw Error("is no LoRA factor of a layer's projection and no router projection", location(file_, name),
                  "train LoRA on q, k, v, o, gate, up and down projections only");
    }
  }
}

LoraUpdate Adapter::find(const std::string& matrix, int64_t out, int64_t in) const {
  MSA_CHECK(matrix.ends_with(kSuffix));
  const std::string module = std::string(kPrefix) + matrix.substr(0, matrix.size() - kSuffix.size());
  const std::string name_a = module + ".lora_A.weight", name_b = module + ".lora_B.weight";
  const LoraUpdate update{file_.find(name_a), file_.find(name_b)};
  if (update.a == nullptr && update.b == nullptr) return {};
  if (update.a == nullptr || update.b == nullptr) {
    throw Error("is missing while its other factor is there", location(file_, update.a == nullptr ? name_a : name_b));
  }
  check_factor(file_, name_a, *update.a, rank_, in);
  check_factor(file_, name_b, *update.b, out, rank_);
  return update;
}

const Tensor* Adapter::find_tensor(const std::string& name) const {
  return file_.find(name == kLayerWeights ? name : std::string(kPrefix) + name);
}

void merge_lora(ThreadPool& pool, const Tensor& base, const LoraUpdate& update, float scale, const Tensor& out) {
  const int64_t rank = update.a->dim(0), in = base.dim(1);
  std::vector<float> a(static_cast<size_t>(rank * in));  // [r, in]
  dequantise_row(update.a->dtype, update.a->data, rank * in, a.data());
  pool.parallel_for(base.rows(), 16, [&](int64_t begin, int64_t end, int) {
    std::vector<float> b(static_cast<size_t>(rank));
    for (int64_t i = begin; i < end; ++i) {
      dequantise_row(base.dtype, base.row<void>(i), in, out.row<float>(i));
      dequantise_row(update.b->dtype, update.b->row<void>(i), rank, b.data());
      for (float& x : b) x *= scale;
      add_product(out.row<float>(i), b.data(), a.data(), rank, in);
    }
  });
}

}  // namespace msa
