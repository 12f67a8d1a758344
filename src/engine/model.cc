#include "engine/model.h"

#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <vector>

#include "tokenizer/model_files.h"

namespace msa {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDefaultModel = "smollm2-135m-msa";

}  // namespace

Precision parse_precision(const std::string& name) {
  if (name == "auto") return Precision::kAuto;
  if (name == "f32") return Precision::kF32;
  if (name == "bf16") return Precision::kBF16;
  throw Error("unknown precision '" + name + "'", "--dtype", "use auto, f32 or bf16");
}

Transformer::Options transformer_options(Precision precision, Device device) {
  switch (precision) {
    case Precision::kF32: return {LinearFormat::kF32, DecodeFormat::kSame};
    case Precision::kBF16: return {LinearFormat::kBF16, DecodeFormat::kSame};
    case Precision::kAuto: break;
  }
  if (on_cuda(device)) return {LinearFormat::kBF16, DecodeFormat::kSame};
  return {default_linear_format(), DecodeFormat::kFile};
}

KvCache run_head(Context& context, const Transformer& transformer, std::span<const int32_t> head) {
  KvCache cache(transformer.config(), static_cast<int>(head.size()), transformer.activation_dtype(),
                transformer.device());
  std::vector<int32_t> positions(head.size());
  std::iota(positions.begin(), positions.end(), 0);
  QueryStage stage(transformer.config(), cache, nullptr, {});
  Workspace workspace;
  transformer.forward(context, workspace, head, positions, stage);
  return cache;
}

Model::Model(Context& context, const std::string& directory, Precision precision) : directory_(directory) {
  if (!fs::is_directory(directory)) {
    throw Error("no such model directory", directory, "run scripts/fetch_model.sh, or give --model DIR or MSA_MODEL");
  }
  tokenizer_ = std::make_unique<Tokenizer>(load_tokenizer(directory));
  prompts_ = std::make_unique<PromptTemplate>(load_prompts(directory, *tokenizer_));
  transformer_ =
      std::make_unique<Transformer>(context, load_weights(directory), transformer_options(precision, context.device));
  if (tokenizer_->vocab_size() > config().vocab) {
    throw Error("the tokenizer has " + std::to_string(tokenizer_->vocab_size()) + " tokens, the model only " +
                    std::to_string(config().vocab),
                directory, "use the tokenizer that belongs to the weights");
  }
  head_ = run_head(context, *transformer_, prompts_->head().tokens);
}

std::string find_model_directory(const std::string& given) {
  if (!given.empty()) return given;
  if (const char* variable = std::getenv("MSA_MODEL"); variable != nullptr && *variable != '\0') return variable;
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  for (fs::path folder = program.parent_path(); !folder.empty(); folder = folder.parent_path()) {
    const fs::path candidate = folder / "models" / kDefaultModel;
    if (fs::exists(candidate / "base.gguf", ignored)) return candidate.string();
    if (folder == folder.root_path()) break;
  }
  throw Error("no model was given and the default model is not here", "models/" + std::string(kDefaultModel),
              "run scripts/fetch_model.sh, or give --model DIR or MSA_MODEL");
}

}  // namespace msa
