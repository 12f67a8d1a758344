#include <algorithm>

#include "io/json_file.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/spec.h"

namespace msa {
namespace {

using nlohmann::json;

std::string item(const std::string& where, size_t i) { return where + "[" + std::to_string(i) + "]"; }

int32_t checked_id(const json& value, const std::string& where) {
  if (!value.is_number_integer()) throw Error("a token id must be an integer, not " + value.dump(), where);
  if (value.is_number_unsigned() ? value.get<uint64_t>() >= static_cast<uint64_t>(kMaxTokens)
                                 : value.get<int64_t>() < 0) {
    throw Error("token id " + value.dump() + " is outside 0…" + std::to_string(kMaxTokens - 1), where);
  }
  return value.get<int32_t>();
}

void set_token(TokenizerSpec& spec, int32_t id, const std::string& token, const std::string& where) {
  if (token.empty()) throw Error("token " + std::to_string(id) + " is empty", where);
  if (static_cast<size_t>(id) >= spec.tokens.size()) spec.tokens.resize(static_cast<size_t>(id) + 1);
  std::string& place = spec.tokens[static_cast<size_t>(id)];
  if (!place.empty()) {
    throw Error(
        "tokens '" + printable(place) + "' and '" + printable(token) + "' have the same id " + std::to_string(id),
        where);
  }
  place = token;
}

void read_merges(const json& merges, const std::string& where, TokenizerSpec& spec) {
  if (merges.size() > static_cast<size_t>(kMaxTokens)) throw Error("there are too many merges", where);
  spec.merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const json& merge = merges[i];
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      spec.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const std::string text = merge.is_string() ? merge.get<std::string>() : "";
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      throw Error(
          "a merge must be \"left right\" or [\"left\", \"right\"], not " + printable(merge.dump(-1, ' ', true)),
          item(where, i));
    }
    spec.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
}

void read_model(const JsonFields& model, TokenizerSpec& spec) {
  if (model.find("type") != nullptr && model.need_string("type") != "BPE") {
    throw Error("model type '" + printable(model.need_string("type")) + "' is not supported", model.where("type"),
                "use a byte-level BPE tokenizer");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.find(key) != nullptr && !model.need_string(key).empty()) {
      throw Error("a value other than \"\" is not supported", model.where(key));
    }
  }
  if (model.find("dropout") != nullptr && model.need_number("dropout") != 0) {
    throw Error("dropout is for training only", model.where("dropout"), "set it to null");
  }
  if (model.flag("byte_fallback", false)) throw Error("true is not supported", model.where("byte_fallback"));
  spec.ignore_merges = model.flag("ignore_merges", false);
  spec.has_unknown_token = model.find("unk_token") != nullptr;

  const JsonFields vocab = model.need_object("vocab");
  for (const auto& [token, id] : model.need("vocab").items()) {
    set_token(spec, checked_id(id, vocab.where(printable(token))), token, vocab.where());
  }
  read_merges(model.need_array("merges"), model.where("merges"), spec);
}

void read_added_tokens(const JsonFields& root, TokenizerSpec& spec) {
  if (root.find("added_tokens") == nullptr) return;
  const json& tokens = root.need_array("added_tokens");
  if (tokens.size() > static_cast<size_t>(kMaxTokens)) throw Error("too many tokens", root.where("added_tokens"));
  for (size_t i = 0; i < tokens.size(); ++i) {
    const JsonFields token(tokens[i], item(root.where("added_tokens"), i));
    for (const char* key : {"lstrip", "rstrip", "single_word"}) {
      if (token.flag(key, false)) throw Error("true is not supported", token.where(key));
    }
    const bool special = token.flag("special", false);
    spec.added.push_back({token.need_string("content"), checked_id(token.need("id"), token.where("id")), special,
                          token.flag("normalized", !special)});
  }
}

/// A Split step; `invert` swaps what the pattern matches and what it does not.
SplitRule read_split(const JsonFields& step) {
  const JsonFields pattern = step.need_object("pattern");
  pattern.allow_only({"Regex", "String"});
  const bool literal = pattern.find("String") != nullptr;
  const char* kind = literal ? "String" : "Regex";
  SplitRule rule{pattern.need_string(kind), literal, true, true, pattern.where(kind)};
  const std::string& behavior = step.need_string("behavior");
  if (behavior == "Removed") {
    (step.flag("invert", false) ? rule.keep_others : rule.keep_matches) = false;
  } else if (behavior != "Isolated") {
    throw Error("behavior '" + printable(behavior) + "' is not supported", step.where("behavior"),
                "Isolated and Removed are");
  }
  return rule;
}

void read_pre_tokenizer(const JsonFields& root, TokenizerSpec& spec) {
  const JsonFields outer = root.need_object("pre_tokenizer");
  std::vector<JsonFields> steps;
  if (outer.need_string("type") == "Sequence") {
    const json& list = outer.need_array("pretokenizers");
    if (list.size() > 32) throw Error("more than 32 steps", outer.where("pretokenizers"));
    for (size_t i = 0; i < list.size(); ++i) steps.emplace_back(list[i], item(outer.where("pretokenizers"), i));
  } else {
    steps.push_back(outer);
  }
  bool byte_level = false;
  for (const JsonFields& step : steps) {
    const std::string& type = step.need_string("type");
    if (byte_level) throw Error("ByteLevel must be the last step", step.where());
    if (type == "Digits") {
      const std::string digit(kDigitPattern);
      spec.splits.push_back(
          {step.flag("individual_digits", false) ? digit : digit + "+", false, true, true, step.where()});
    } else if (type == "Split") {
      spec.splits.push_back(read_split(step));
    } else if (type == "ByteLevel") {
      byte_level = true;
      if (step.flag("add_prefix_space", true)) throw Error("true is not supported", step.where("add_prefix_space"));
      if (step.flag("use_regex", true))
        spec.splits.push_back({std::string(kGpt2Pattern), false, true, true, step.where()});
    } else {
      throw Error("pre-tokeniser '" + printable(type) + "' is not supported", step.where("type"),
                  "Sequence, Digits, Split and ByteLevel are");
    }
  }
  if (!byte_level) throw Error("there is no ByteLevel step", outer.where(), "use a byte-level BPE tokenizer");
}

void read_normalizer(const JsonFields& root, TokenizerSpec& spec) {
  if (root.find("normalizer") == nullptr) return;
  const JsonFields normalizer = root.need_object("normalizer");
  if (normalizer.need_string("type") != "NFC") {
    throw Error("normaliser '" + printable(normalizer.need_string("type")) + "' is not supported",
                normalizer.where("type"), "null and NFC are");
  }
  spec.nfc = true;
}

}  // namespace

TokenizerSpec tokenizer_spec_from_json(std::string_view bytes, const std::string& where) {
  const json document = parse_json(bytes, where);
  const JsonFields root(document, where + ": $");
  TokenizerSpec spec;
  spec.where = where;
  read_model(root.need_object("model"), spec);
  read_added_tokens(root, spec);
  read_normalizer(root, spec);
  read_pre_tokenizer(root, spec);
  if (root.find("decoder") != nullptr) {
    const JsonFields decoder = root.need_object("decoder");
    if (decoder.need_string("type") != "ByteLevel") {
      throw Error("decoder '" + printable(decoder.need_string("type")) + "' is not supported", decoder.where("type"),
                  "ByteLevel is");
    }
  }
  return spec;
}

}  // namespace msa
