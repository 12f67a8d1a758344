#include "tokenizer/template.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "io/file.h"
#include "io/json_file.h"
#include "tokenizer/json_fields.h"

namespace msa {
namespace {

using nlohmann::json;

constexpr size_t kMaxPieces = 64;
constexpr size_t kMaxTemplateBytes = 1 << 20;

constexpr std::string_view kPublicDefault = R"({
 "version": 1,
 "head": ["<|im_start|>", "user\n"],
 "document": ["<|im_start|>", "[{id}]", ". ", "{text}", "[{id}]", "<|im_end|>"],
 "query": ["\nPlease answer the question based on the above historical document information\n\n", "{question}",
           "\nPlease return all documents related to the question\n", "<|im_end|>", "\n", "<|im_start|>"],
 "cite": ["[{id}]", "<|object_ref_end|>"],
 "fetched": ["[{id}]", ". ", "{text}", "\n", "<|object_ref_end|>"],
 "end_of_retrieve": "<End-of-Retrieve>",
 "final": ["<|im_start|>", "The user's question is: ", "{question}", "\n", "<|object_ref_end|>"],
 "answer_prefix": "The answer to the question is:",
 "stop": ["<|im_end|>"],
 "id_decoding": {"prior_weight": 0.0, "prior_temperature": 0.03}
}
)";

bool is_placeholder_name(std::string_view name) {
  return !name.empty() &&
         std::all_of(name.begin(), name.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

struct Placeholder {
  size_t begin = 0;
  size_t end = 0;
  std::string_view name;
};

/// The first {name} at or after `from`; end 0 when there is none.
Placeholder find_placeholder(std::string_view text, size_t from) {
  for (size_t open = text.find('{', from); open != std::string_view::npos; open = text.find('{', open + 1)) {
    const size_t close = text.find('}', open);
    if (close == std::string_view::npos) break;
    const std::string_view name = text.substr(open + 1, close - open - 1);
    if (is_placeholder_name(name)) return {open, close + 1, name};
  }
  return {};
}

bool names_control_token(std::string_view text) {
  return text.size() > 4 && text.starts_with("<|") && text.ends_with("|>");
}

}  // namespace

/// Fills a PromptTemplate from its file.
class PromptTemplate::Reader {
 public:
  Reader(PromptTemplate& out, const JsonFields& root) : out_(out), root_(root) {}

  void read() {
    root_.allow_only({"version", "head", "document", "query", "cite", "fetched", "end_of_retrieve", "final",
                      "answer_prefix", "stop", "id_decoding"});
    if (root_.need("version") != 1) {
      throw Error("only version 1 is known", root_.where("version"), "use a template written for this engine");
    }
    out_.head_ = pieces("head", {});
    out_.document_ = pieces("document", {PieceKind::kId, PieceKind::kText});
    out_.query_ = pieces("query", {PieceKind::kQuestion});
    out_.cite_ = pieces("cite", {PieceKind::kId});
    out_.fetched_ = pieces("fetched", {PieceKind::kId, PieceKind::kText});
    out_.final_ = pieces("final", {PieceKind::kQuestion});
    out_.answer_prefix_ = {literal(root_.need_string("answer_prefix"), root_.where("answer_prefix"))};
    out_.end_of_retrieve_ = literal(root_.need_string("end_of_retrieve"), root_.where("end_of_retrieve")).tokens;
    read_stop();
    read_id_decoding();
  }

 private:
  Piece literal(const std::string& text, const std::string& where) const {
    if (find_placeholder(text, 0).end != 0) throw Error("no placeholder may stand here", where);
    Piece piece;
    piece.tokens = out_.tokenizer_.encode(text, /*parse_special=*/true);
    if (piece.tokens.empty()) throw Error("the text gives no tokens", where);
    if (names_control_token(text) && out_.tokenizer_.special_id(text) < 0) {
      throw Error("'" + printable(text) + "' is not a special token of this model's tokenizer", where,
                  "use the template that belongs to the model");
    }
    return piece;
  }

  Piece piece(const std::string& text, const std::vector<PieceKind>& allowed, const std::string& where) const {
    const Placeholder found = find_placeholder(text, 0);
    if (found.end == 0) return literal(text, where);
    Piece piece;
    if (found.name == "id") piece.kind = PieceKind::kId;
    if (found.name == "text") piece.kind = PieceKind::kText;
    if (found.name == "question") piece.kind = PieceKind::kQuestion;
    if (std::find(allowed.begin(), allowed.end(), piece.kind) == allowed.end()) {
      throw Error("the placeholder {" + printable(found.name) + "} has no meaning here", where);
    }
    if (find_placeholder(text, found.end).end != 0) throw Error("a piece holds one placeholder at most", where);
    if (piece.kind != PieceKind::kId && text.size() != found.end - found.begin) {
      throw Error("{" + std::string(found.name) + "} must be a piece of its own", where,
                  "its text is tokenised alone: split the piece");
    }
    piece.before = text.substr(0, found.begin);
    piece.after = text.substr(found.end);
    return piece;
  }

  /// A list of pieces that holds every one of the placeholders; text and question once.
  std::vector<Piece> pieces(const char* key, const std::vector<PieceKind>& wanted) const {
    return pieces(root_, key, wanted);
  }
  std::vector<Piece> pieces(const JsonFields& fields, const char* key, const std::vector<PieceKind>& wanted) const {
    const json& list = fields.need_array(key);
    if (list.empty() || list.size() > kMaxPieces) {
      throw Error("must have 1 to " + std::to_string(kMaxPieces) + " pieces", fields.where(key));
    }
    std::vector<Piece> result;
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string where = fields.where(key) + "[" + std::to_string(i) + "]";
      if (!list[i].is_string()) throw Error("must be a string, not " + std::string(list[i].type_name()), where);
      result.push_back(piece(list[i].get_ref<const std::string&>(), wanted, where));
    }
    for (const PieceKind kind : wanted) {
      const auto n = std::count_if(result.begin(), result.end(), [&](const Piece& p) { return p.kind == kind; });
      if (n == 0 || (n > 1 && kind != PieceKind::kId)) {
        const char* name = kind == PieceKind::kId ? "{id}" : kind == PieceKind::kText ? "{text}" : "{question}";
        throw Error(std::string(name) + (n == 0 ? " is missing" : " may stand here only once"), fields.where(key));
      }
    }
    return result;
  }

  void read_stop() const {
    const json& stop = root_.need_array("stop");
    if (stop.empty()) throw Error("there is no stop token", root_.where("stop"));
    for (size_t i = 0; i < stop.size(); ++i) {
      const std::string where = root_.where("stop") + "[" + std::to_string(i) + "]";
      if (!stop[i].is_string()) throw Error("must be a string, not " + std::string(stop[i].type_name()), where);
      const std::string& text = stop[i].get_ref<const std::string&>();
      const int32_t id = out_.tokenizer_.special_id(text);
      if (id < 0) throw Error("'" + printable(text) + "' is not a special token of this model's tokenizer", where);
      if (i == 0) out_.first_stop_ = id;
      out_.stop_.insert(id);
    }
  }

  void read_id_decoding() const {
    const JsonFields fields = root_.need_object("id_decoding");
    fields.allow_only({"prior_weight", "prior_temperature", "late_temperature", "hop_mass", "rerank"});
    out_.prior_weight = number(fields, "prior_weight", 0);
    out_.prior_temperature = number(fields, "prior_temperature", 1e-6);
    if (fields.find("late_temperature") != nullptr) out_.late_temperature = number(fields, "late_temperature", 1e-6);
    if (fields.find("rerank") != nullptr) read_rerank(fields.need_object("rerank"));
    if (fields.find("hop_mass") == nullptr) return;
    out_.hop_mass = number(fields, "hop_mass", 0);
    if (out_.hop_mass >= 1) throw Error("must be below 1, it is a probability", fields.where("hop_mass"));
  }

  void read_rerank(const JsonFields& fields) const {
    fields.allow_only({"documents", "weight", "confident", "question", "document", "ask", "yes", "no"});
    const double documents = fields.need_number("documents");
    if (!(documents >= 0 && documents <= 1024) || documents != std::floor(documents)) {
      throw Error("must be a whole number from 0 to 1024", fields.where("documents"));
    }
    out_.rerank.documents = static_cast<int>(documents);
    out_.rerank.weight = number(fields, "weight", 0);
    out_.rerank.confident = number(fields, "confident", 0);
    if (out_.rerank.confident > 1) throw Error("must be 1 or less, it is a probability", fields.where("confident"));
    out_.rerank_question_ = pieces(fields, "question", {PieceKind::kQuestion});
    out_.rerank_document_ = pieces(fields, "document", {PieceKind::kText});
    out_.rerank_ask_ = pieces(fields, "ask", {PieceKind::kQuestion});
    out_.rerank.yes = literal(fields.need_string("yes"), fields.where("yes")).tokens.front();
    out_.rerank.no = literal(fields.need_string("no"), fields.where("no")).tokens.front();
    if (out_.rerank.yes == out_.rerank.no) throw Error("must not begin with the token of yes", fields.where("no"));
  }

  static float number(const JsonFields& fields, const char* key, double least) {
    const double value = fields.need_number(key);
    if (!(value >= least && value <= 1e6)) {
      throw Error("must be between " + std::to_string(least) + " and 1000000", fields.where(key));
    }
    return static_cast<float>(value);
  }

  PromptTemplate& out_;
  const JsonFields& root_;
};

void Prompt::append(const Prompt& more) {
  tokens.insert(tokens.end(), more.tokens.begin(), more.tokens.end());
  routed.insert(routed.end(), more.routed.begin(), more.routed.end());
}

PromptTemplate PromptTemplate::from_json(std::string_view bytes, const std::string& where, const Tokenizer& tokenizer) {
  const json document = parse_json(bytes, where);
  const JsonFields root(document, where + ": $");
  PromptTemplate result(tokenizer);
  Reader(result, root).read();
  return result;
}

PromptTemplate PromptTemplate::load(const std::string& path, const Tokenizer& tokenizer) {
  return from_json(read_file(path, kMaxTemplateBytes), path, tokenizer);
}

std::string_view PromptTemplate::public_default_json() { return kPublicDefault; }

PromptTemplate PromptTemplate::public_default(const Tokenizer& tokenizer) {
  return from_json(kPublicDefault, "the default msa_template.json", tokenizer);
}

Prompt PromptTemplate::fill(const std::vector<Piece>& pieces, const Values& values) const {
  Prompt prompt;
  const auto add = [&](std::span<const int32_t> tokens, bool routed) {
    prompt.tokens.insert(prompt.tokens.end(), tokens.begin(), tokens.end());
    prompt.routed.resize(prompt.tokens.size(), routed ? 1 : 0);
  };
  for (const Piece& piece : pieces) {
    switch (piece.kind) {
      case PieceKind::kLiteral: add(piece.tokens, false); break;
      case PieceKind::kId: {
        MSA_CHECK(values.id >= 0);
        add(tokenizer_.encode(piece.before + std::to_string(values.id) + piece.after, /*parse_special=*/true), false);
        break;
      }
      case PieceKind::kText: add(values.text, false); break;
      case PieceKind::kQuestion: add(tokenizer_.encode(values.question), true); break;
    }
  }
  return prompt;
}

Prompt PromptTemplate::head() const { return fill(head_, {}); }

Prompt PromptTemplate::document(int64_t id, std::span<const int32_t> text_tokens) const {
  return fill(document_, {id, text_tokens, {}});
}

Prompt PromptTemplate::query(std::string_view question) const { return fill(query_, {0, {}, question}); }

std::vector<int32_t> PromptTemplate::cite(int64_t id) const { return fill(cite_, {id, {}, {}}).tokens; }

Prompt PromptTemplate::fetched(int64_t id, std::span<const int32_t> text_tokens) const {
  Prompt prompt = fill(fetched_, {id, text_tokens, {}});
  std::fill(prompt.routed.begin(), prompt.routed.end(), uint8_t{1});
  return prompt;
}

Prompt PromptTemplate::unrouted(const std::vector<Piece>& pieces, const Values& values) const {
  Prompt prompt = fill(pieces, values);
  std::fill(prompt.routed.begin(), prompt.routed.end(), uint8_t{0});
  return prompt;
}

Prompt PromptTemplate::final_question(std::string_view question) const { return unrouted(final_, {0, {}, question}); }

Prompt PromptTemplate::answer_prefix() const { return fill(answer_prefix_, {}); }

Prompt PromptTemplate::rerank_question(std::string_view question) const {
  return unrouted(rerank_question_, {0, {}, question});
}

Prompt PromptTemplate::rerank_document(std::span<const int32_t> text_tokens) const {
  return unrouted(rerank_document_, {0, text_tokens, {}});
}

Prompt PromptTemplate::rerank_ask(std::string_view question) const { return unrouted(rerank_ask_, {0, {}, question}); }

}  // namespace msa
