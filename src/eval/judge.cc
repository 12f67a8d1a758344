#include "eval/judge.h"

#include <httplib.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "core/error.h"
#include "io/text.h"

namespace msa::eval {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kUrlFix = "give it as http://HOST:PORT/v1 or https://HOST/v1";

/// "https://host/v1/" → "https://host" and "/v1".
std::pair<std::string, std::string> split_url(const std::string& url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string::npos || (url.substr(0, scheme) != "http" && url.substr(0, scheme) != "https")) {
    throw Error("'" + url + "' is no address of an endpoint", "--judge", kUrlFix);
  }
  const size_t path = std::min(url.find('/', scheme + 3), url.size());
  if (path == scheme + 3) throw Error("'" + url + "' names no host", "--judge", kUrlFix);
  std::string base = url.substr(path);
  while (base.ends_with('/')) base.pop_back();
  return {url.substr(0, path), base};
}

std::string content_of(const std::string& body, const std::string& where) {
  const Json reply = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  const Json::json_pointer pointer("/choices/0/message/content");
  if (reply.is_object() && reply.contains(pointer) && reply.at(pointer).is_string()) return reply.at(pointer);
  throw Error("the reply is no chat completion: " + printable(body.substr(0, 200)), where,
              "is this an OpenAI-compatible endpoint?");
}

}  // namespace

std::string judge_prompt(std::string_view question, std::span<const std::string> answers, std::string_view prediction) {
  std::string prompt =
      "Grade an answer to a question by the reference answers.\n"
      "5: says what a reference answer says, completely and without error\n"
      "4: right in substance, with a slip or a detail too much or too little\n"
      "3: mostly right, something that matters is missing or wrong\n"
      "2: partly right\n"
      "1: on the subject, but wrong\n"
      "0: nothing of it is right, or no answer is given\n"
      "Wording, case and form do not count. End with one line: score: N\n\nQuestion: ";
  prompt += question;
  for (const std::string& answer : answers) prompt += "\nReference answer: " + answer;
  prompt += "\nAnswer to grade: ";
  prompt += prediction;
  return prompt;
}

std::optional<double> score_in_reply(std::string_view reply) {
  std::string lower(reply);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  const size_t label = lower.rfind("score:");
  if (label == std::string::npos) return std::nullopt;
  const size_t begin = lower.find_first_not_of(" *", label + 6);  // "**score:** 4" is how some write
  if (begin == std::string::npos) return std::nullopt;
  double score = -1;
  const auto [end, code] = std::from_chars(lower.data() + begin, lower.data() + lower.size(), score);
  if (code != std::errc() || !(score >= 0 && score <= 5)) return std::nullopt;
  return score;
}

struct Judge::Connection {
  httplib::Client client;
  std::string path;
};

Judge::Judge(JudgeOptions options) : options_(std::move(options)) {
  const auto [host, base] = split_url(options_.url);
  connection_ = std::make_unique<Connection>(httplib::Client(host), base + "/chat/completions");
  httplib::Client& client = connection_->client;
  if (!client.is_valid()) throw Error("'" + options_.url + "' is no address of an endpoint", "--judge", kUrlFix);
  client.set_read_timeout(options_.timeout_s, 0);
  if (!options_.key.empty()) client.set_bearer_token_auth(options_.key);
}

Judge::~Judge() = default;

std::string Judge::reply_to(const std::string& prompt) const {
  const Json body = {{"model", options_.model},
                     {"temperature", 0},
                     {"messages", Json::array({{{"role", "user"}, {"content", prompt}}})}};
  const std::string text = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string problem;
  for (int attempt = 1; attempt <= options_.attempts; ++attempt) {
    if (attempt > 1) std::this_thread::sleep_for(std::chrono::milliseconds(250) * (1 << attempt));
    const httplib::Result result = connection_->client.Post(connection_->path, text, "application/json");
    if (result && result->status == 200) return content_of(result->body, options_.url);
    problem = result ? "status " + std::to_string(result->status) + ": " + printable(result->body.substr(0, 200))
                     : httplib::to_string(result.error());
    if (result && result->status != 429 && result->status < 500) break;  // the same request fails again
  }
  throw Error("the judge gives no reply: " + problem, options_.url,
              "check the address, --judge-model and MSA_JUDGE_KEY");
}

std::optional<double> Judge::grade(std::string_view question, std::span<const std::string> answers,
                                   std::string_view prediction) const {
  return score_in_reply(reply_to(judge_prompt(question, answers, prediction)));
}

}  // namespace msa::eval
