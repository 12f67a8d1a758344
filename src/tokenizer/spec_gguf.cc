#include "core/error.h"
#include "io/gguf.h"
#include "io/text.h"
#include "tokenizer/spec.h"

namespace msa {
namespace {

// tokenizer.ggml.token_type
constexpr int64_t kUnknown = 2;
constexpr int64_t kControl = 3;
constexpr int64_t kUserDefined = 4;

SplitRule isolate(std::string_view pattern, const std::string& where) {
  return {std::string(pattern), false, true, true, where};
}

/// What llama.cpp's names of pre-tokenisers stand for in tokenizer.json.
void set_pre_tokenizer(std::string_view name, const std::string& where, TokenizerSpec& spec) {
  if (name == "smollm") {
    spec.splits = {isolate(kDigitPattern, where), isolate(kGpt2Pattern, where)};
  } else if (name == "qwen2") {
    spec.splits = {isolate(kQwen2Pattern, where)};
    spec.nfc = true;
  } else if (name == "llama-bpe" || name == "llama3") {
    spec.splits = {isolate(kLlama3Pattern, where)};
    spec.ignore_merges = true;
  } else if (name == "gpt-2" || name == "gpt2" || name == "default") {
    spec.splits = {isolate(kGpt2Pattern, where)};
  } else {
    throw Error("pre-tokeniser '" + printable(name) + "' is not supported", where,
                "supported are smollm, qwen2, llama-bpe and gpt-2; or put the model's tokenizer.json beside it");
  }
}

}  // namespace

TokenizerSpec tokenizer_spec_from_gguf(const std::string& path) {
  const GgufFile file = GgufFile::open(path);
  const std::string where = path + ": tokenizer.ggml.";
  const std::string_view model = file.string("tokenizer.ggml.model").value_or("");
  if (model != "gpt2") {
    throw Error("tokenizer model '" + printable(model) + "' is not supported", where + "model", "gpt2 is");
  }
  TokenizerSpec spec;
  spec.where = path;
  set_pre_tokenizer(file.string("tokenizer.ggml.pre").value_or("default"), where + "pre", spec);

  const std::vector<std::string_view> tokens = file.strings("tokenizer.ggml.tokens");
  if (tokens.empty()) throw Error("there are no tokens", where + "tokens", "use a GGUF file with its tokenizer");
  if (tokens.size() > static_cast<size_t>(kMaxTokens)) throw Error("there are too many tokens", where + "tokens");
  spec.tokens.assign(tokens.begin(), tokens.end());

  const std::vector<std::string_view> merges = file.strings("tokenizer.ggml.merges");
  if (merges.size() > static_cast<size_t>(kMaxTokens)) throw Error("there are too many merges", where + "merges");
  for (size_t i = 0; i < merges.size(); ++i) {
    const size_t space = merges[i].find(' ');
    if (space == std::string_view::npos || merges[i].find(' ', space + 1) != std::string_view::npos) {
      throw Error("a merge must be \"left right\", not '" + printable(merges[i]) + "'",
                  where + "merges[" + std::to_string(i) + "]");
    }
    spec.merges.emplace_back(merges[i].substr(0, space), merges[i].substr(space + 1));
  }

  const std::vector<int64_t> types = file.integers("tokenizer.ggml.token_type");
  if (types.size() != tokens.size()) {
    throw Error("there are " + std::to_string(types.size()) + " types for " + std::to_string(tokens.size()) + " tokens",
                where + "token_type");
  }
  for (size_t id = 0; id < types.size(); ++id) {
    if (types[id] != kUnknown && types[id] != kControl && types[id] != kUserDefined) continue;
    spec.added.push_back({spec.tokens[id], static_cast<int32_t>(id), types[id] != kUserDefined, false});
  }
  return spec;
}

}  // namespace msa
