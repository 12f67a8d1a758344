#include "server/completions.h"

#include <fmt/format.h>

#include <cmath>
#include <random>
#include <utility>

#include "io/text.h"
#include "server/answer_json.h"
#include "server/http_error.h"

namespace msa::server {
namespace {

[[noreturn]] void refuse(const std::string& field, const std::string& why) {
  throw HttpError{400, field + " " + why, field, "unsupported_value"};
}

/// Fields of the protocol that change nothing here only at one value.
void check_unsupported(const Fields& f) {
  if (f.integer("n", 1, 128).value_or(1) != 1) refuse("n", "must be 1: there is one answer");
  for (const char* penalty : {"presence_penalty", "frequency_penalty"}) {
    if (f.number(penalty, -2, 2).value_or(0) != 0) refuse(penalty, "is not supported (fix: leave it out)");
  }
  if (const Json* bias = f.object("logit_bias"); bias != nullptr && !bias->empty()) {
    refuse("logit_bias", "is not supported (fix: leave it out)");
  }
}

void read_memory(const Json& object, const std::string& bank, CompletionRequest& r) {
  const Fields f(object, "memory");
  f.allow_only(
      {"bank", "namespace", "filter", "as_of", "top_k", "hops", "max_documents", "rerank", "min_relevance", "trace"});
  if (const auto name = f.text("bank"); name && *name != bank) {
    throw HttpError{404, "there is no bank '" + printable(*name, 60) + "' here; this server has '" + bank + "'",
                    "memory.bank", "bank_not_found"};
  }
  r.scope = read_scope(f);
  r.ask.top_k = static_cast<int>(f.integer("top_k", 1, 4096).value_or(0));
  r.ask.max_hops = static_cast<int>(f.integer("hops", 0, 64).value_or(r.ask.max_hops));
  r.ask.max_documents = static_cast<int>(f.integer("max_documents", 1, 256).value_or(r.ask.max_documents));
  r.ask.rerank = static_cast<int>(f.integer("rerank", 0, 1024).value_or(r.ask.rerank));
  r.ask.min_relevance = static_cast<float>(f.number("min_relevance", 0, 1).value_or(r.ask.min_relevance));
  r.trace = f.boolean("trace").value_or(false);
}

/// What both kinds of requests share.
void read_common(const Fields& f, const std::string& bank, CompletionRequest& r) {
  check_unsupported(f);
  r.model = f.need_text("model");
  r.ask.sampling.temperature = static_cast<float>(f.number("temperature", 0, 2).value_or(0));
  r.ask.sampling.top_p = static_cast<float>(f.number("top_p", 1e-6, 1).value_or(1));
  if (const auto seed = f.integer("seed", INT64_MIN, INT64_MAX)) r.seed = static_cast<uint64_t>(*seed);
  r.stop = f.texts("stop", 16);
  r.stream = f.boolean("stream").value_or(false);
  if (const Json* options = f.object("stream_options")) {
    const Fields o(*options, "stream_options");
    o.allow_only({"include_usage", "include_obfuscation"});
    r.include_usage = o.boolean("include_usage").value_or(false);
  }
  if (const Json* memory = f.object("memory")) read_memory(*memory, bank, r);
}

/// A message's text: a string, or a list of parts that are all text.
std::string content_of(const Json& message, const std::string& path) {
  const Fields f(message, path);
  f.allow_only({"role", "content", "name", "refusal"});
  const Json content = message.value("content", Json());
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array() || content.empty()) {
    throw HttpError{400, path + ".content must be a string or a list of text parts", path + ".content",
                    "invalid_value"};
  }
  std::string text;
  for (const Json& part : content) {
    if (!part.is_object() || part.value("type", Json()) != "text" || !part.value("text", Json()).is_string()) {
      throw HttpError{400, path + ".content may hold text parts alone", path + ".content", "unsupported_value"};
    }
    if (!text.empty()) text += '\n';
    text += part["text"].get<std::string>();
  }
  return text;
}

std::string random_id() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}", device(), device(), device());
}

Json usage_of(const Answer& answer) {
  return {{"prompt_tokens", answer.prompt_tokens},
          {"completion_tokens", answer.answer_tokens},
          {"total_tokens", answer.prompt_tokens + answer.answer_tokens}};
}

Json finish_reason(const Answer& answer, bool stopped) {
  return stopped || answer.stop_reason == "stop" || answer.stop_reason == "not_found" ? "stop" : "length";
}

}  // namespace

std::string question_of(const Json& messages) {
  if (messages.empty()) throw HttpError{400, "messages must not be empty", "messages", "missing_value"};
  std::string question;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string path = "messages[" + std::to_string(i) + "]";
    if (!messages[i].is_object()) throw HttpError{400, path + " must be an object", path, "invalid_value"};
    const std::string role = Fields(messages[i], path).need_text("role");
    const std::string content = content_of(messages[i], path);
    if (i + 1 == messages.size()) {
      if (role != "user") {
        throw HttpError{400, "the last message must be the user's: it is the question", path + ".role",
                        "invalid_value"};
      }
      return question + content;
    }
    if (role != "system" && role != "developer" && role != "user" && role != "assistant") {
      throw HttpError{400, path + ".role must be system, developer, user or assistant", path + ".role",
                      "invalid_value"};
    }
    question.append(role).append(": ").append(content).append("\n");
  }
  return question;
}

CompletionRequest read_chat_request(const Json& body, const std::string& bank) {
  const Fields f(body);
  f.allow_only({"model",
                "messages",
                "temperature",
                "top_p",
                "seed",
                "stop",
                "stream",
                "stream_options",
                "max_tokens",
                "max_completion_tokens",
                "n",
                "presence_penalty",
                "frequency_penalty",
                "logit_bias",
                "memory",
                "user",
                "metadata",
                "store",
                "service_tier",
                "safety_identifier",
                "prompt_cache_key"});
  CompletionRequest r;
  read_common(f, bank, r);
  const auto most = f.integer("max_completion_tokens", 1, 100000);
  const auto older = f.integer("max_tokens", 1, 100000);
  r.ask.max_answer_tokens = static_cast<int>(most.value_or(older.value_or(r.ask.max_answer_tokens)));
  const Json* messages = f.array("messages");
  if (messages == nullptr) throw HttpError{400, "messages is missing", "messages", "missing_value"};
  r.question = question_of(*messages);
  return r;
}

CompletionRequest read_completion_request(const Json& body, const std::string& bank) {
  const Fields f(body);
  f.allow_only({"model", "prompt", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "max_tokens",
                "n", "presence_penalty", "frequency_penalty", "logit_bias", "best_of", "echo", "memory", "user"});
  CompletionRequest r;
  r.is_chat = false;
  read_common(f, bank, r);
  if (f.integer("best_of", 1, 20).value_or(1) != 1) refuse("best_of", "must be 1");
  if (f.boolean("echo").value_or(false)) refuse("echo", "is not supported (fix: leave it out)");
  r.ask.max_answer_tokens = static_cast<int>(f.integer("max_tokens", 1, 100000).value_or(r.ask.max_answer_tokens));
  const auto prompts = f.texts("prompt", 1);
  if (prompts.empty()) throw HttpError{400, "prompt is missing", "prompt", "missing_value"};
  r.question = prompts.front();
  return r;
}

CompletionReply::CompletionReply(const CompletionRequest& request, std::vector<int> routing_layers, int64_t created)
    : is_chat_(request.is_chat),
      trace_(request.trace),
      id_((request.is_chat ? "chatcmpl-" : "cmpl-") + random_id()),
      model_(request.model),
      created_(created),
      layers_(std::move(routing_layers)) {}

Json CompletionReply::frame(bool is_stream) const {
  const char* object = !is_chat_ ? "text_completion" : is_stream ? "chat.completion.chunk" : "chat.completion";
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_}, {"choices", Json::array()}};
}

Json CompletionReply::choice(Json content, Json finish, bool is_stream) const {
  Json c = {{"index", 0}};
  if (!is_chat_) {
    c["text"] = content.is_null() ? Json("") : std::move(content);
    c["logprobs"] = nullptr;
  } else if (is_stream) {
    c["delta"] = content.is_null() ? Json::object() : Json{{"content", std::move(content)}};
  } else {
    c["message"] = {{"role", "assistant"}, {"content", std::move(content)}};
  }
  c["finish_reason"] = std::move(finish);
  return c;
}

Json CompletionReply::whole(const std::string& text, const Answer& answer, bool stopped) const {
  Json out = frame(false);
  out["choices"].push_back(choice(text, finish_reason(answer, stopped), false));
  out["usage"] = usage_of(answer);
  out["memory"] = memory(answer);
  return out;
}

Json CompletionReply::first() const {
  Json out = frame(true);
  Json c = choice("", nullptr, true);
  c["delta"] = {{"role", "assistant"}, {"content", ""}};
  out["choices"].push_back(std::move(c));
  return out;
}

Json CompletionReply::piece(const std::string& text) const {
  Json out = frame(true);
  out["choices"].push_back(choice(text, nullptr, true));
  return out;
}

Json CompletionReply::last(const Answer& answer, bool stopped) const {
  Json out = frame(true);
  out["choices"].push_back(choice(nullptr, finish_reason(answer, stopped), true));
  out["memory"] = memory(answer);
  return out;
}

Json CompletionReply::usage(const Answer& answer) const {
  Json out = frame(true);
  out["usage"] = usage_of(answer);
  return out;
}

Json CompletionReply::memory(const Answer& answer) const {
  Json out = {{"documents", documents_json(answer)}};
  if (answer.missing.any()) out["missing"] = missing_json(answer.missing);
  if (answer.stop_reason == "not_found") out["not_found"] = true;
  if (trace_) out["hops"] = hops_json(answer, layers_);
  return out;
}

}  // namespace msa::server
