#include "tokenizer/model_files.h"

#include <filesystem>

#include "core/error.h"

namespace msa {

namespace fs = std::filesystem;

Tokenizer load_tokenizer(const std::string& model) {
  if (!fs::is_directory(model)) return Tokenizer::from_gguf(model);
  const fs::path json = fs::path(model) / "tokenizer.json", gguf = fs::path(model) / "base.gguf";
  if (fs::exists(json)) return Tokenizer::from_json_file(json.string());
  if (fs::exists(gguf)) return Tokenizer::from_gguf(gguf.string());
  throw Error("no tokenizer.json and no base.gguf", model, "give the directory of a complete model");
}

PromptTemplate load_prompts(const std::string& model, const Tokenizer& tokenizer) {
  const fs::path file = fs::path(model) / "msa_template.json";
  return fs::exists(file) ? PromptTemplate::load(file.string(), tokenizer) : PromptTemplate::public_default(tokenizer);
}

}  // namespace msa
