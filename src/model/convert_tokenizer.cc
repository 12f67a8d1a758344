#include "model/convert_tokenizer.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/text.h"

namespace msa {
namespace {

using nlohmann::ordered_json;

// tokenizer.ggml.token_type
constexpr int64_t kUnknown = 2;
constexpr int64_t kControl = 3;
constexpr int64_t kUserDefined = 4;

constexpr const char* kQwen2Pattern = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                                      R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3Pattern = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                                       R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string location(const GgufFile& file, const char* key) { return file.path() + ", metadata key '" + key + "'"; }

ordered_json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

ordered_json sequence(const ordered_json& first, bool use_regex) {
  return {{"type", "Sequence"}, {"pretokenizers", ordered_json::array({first, byte_level(use_regex)})}};
}

ordered_json split(const char* pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

struct Style {
  ordered_json normalizer;  // null for none
  ordered_json pre_tokenizer;
  bool ignore_merges = false;
};

/// What llama.cpp's name of the pre-tokeniser stands for.
Style style_of(const GgufFile& file) {
  const std::string_view name = file.string("tokenizer.ggml.pre").value_or("default");
  if (name == "smollm") return {nullptr, sequence({{"type", "Digits"}, {"individual_digits", true}}, true)};
  if (name == "qwen2") return {{{"type", "NFC"}}, sequence(split(kQwen2Pattern), false)};
  if (name == "llama-bpe" || name == "llama3") return {nullptr, sequence(split(kLlama3Pattern), false), true};
  if (name == "gpt-2" || name == "gpt2" || name == "default") return {nullptr, byte_level(true)};
  throw Error("names the unsupported pre-tokeniser '" + printable(name) + "'", location(file, "tokenizer.ggml.pre"),
              "give a model directory with a tokenizer.json as the source");
}

ordered_json vocabulary(const GgufFile& file, const std::vector<std::string_view>& tokens) {
  std::map<std::string_view, size_t> seen;
  ordered_json::object_t vocab;  // filled at its end: looking up each key would be quadratic
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!seen.emplace(tokens[id], id).second) {
      throw Error("holds the token '" + printable(tokens[id]) + "' twice", location(file, "tokenizer.ggml.tokens"));
    }
    vocab.push_back({std::string(tokens[id]), id});
  }
  return vocab;
}

ordered_json merge_list(const GgufFile& file) {
  constexpr const char* kKey = "tokenizer.ggml.merges";
  ordered_json merges = ordered_json::array();
  for (const std::string_view merge : file.strings(kKey)) {
    const size_t space = merge.find(' ');
    if (space == merge.npos || merge.find(' ', space + 1) != merge.npos) {
      throw Error("holds '" + printable(merge) + "', expected two tokens with a blank between", location(file, kKey));
    }
    merges.push_back(ordered_json::array({merge.substr(0, space), merge.substr(space + 1)}));
  }
  return merges;
}

ordered_json added_tokens(const GgufFile& file, const std::vector<std::string_view>& tokens) {
  constexpr const char* kKey = "tokenizer.ggml.token_type";
  const std::vector<int64_t> types = file.integers(kKey);
  if (types.size() != tokens.size()) {
    throw Error("holds " + std::to_string(types.size()) + " types for " + std::to_string(tokens.size()) + " tokens",
                location(file, kKey));
  }
  ordered_json added = ordered_json::array();
  for (size_t id = 0; id < types.size(); ++id) {
    if (types[id] != kUnknown && types[id] != kControl && types[id] != kUserDefined) continue;
    added.push_back({{"id", id},
                     {"content", tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", types[id] != kUserDefined}});
  }
  return added;
}

}  // namespace

ordered_json tokenizer_to_json(const GgufFile& file) {
  const std::string_view model = file.string("tokenizer.ggml.model").value_or("");
  if (model != "gpt2") {
    throw Error("is '" + printable(model) + "', only the byte-level gpt2 is supported",
                location(file, "tokenizer.ggml.model"), "give a model directory with a tokenizer.json as the source");
  }
  const Style style = style_of(file);
  const std::vector<std::string_view> tokens = file.strings("tokenizer.ggml.tokens");
  if (tokens.empty()) throw Error("is missing", location(file, "tokenizer.ggml.tokens"));
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens(file, tokens)},
          {"normalizer", style.normalizer},
          {"pre_tokenizer", style.pre_tokenizer},
          {"post_processor", nullptr},
          {"decoder", byte_level(true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", style.ignore_merges},
            {"vocab", vocabulary(file, tokens)},
            {"merges", merge_list(file)}}}};
}

}  // namespace msa
