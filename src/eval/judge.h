// A language model behind an OpenAI-compatible endpoint grades answers from 0 to 5, the paper's scale.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace msa::eval {

struct JudgeOptions {
  std::string url;    // "https://host:port/v1"; "/chat/completions" is put behind it
  std::string model;  // as the endpoint names it
  std::string key;    // sent as bearer token; may be empty
  int timeout_s = 120;
  int attempts = 3;  // while the endpoint is unreachable, busy (429) or failing (5xx), with growing pauses
};

/// What the judge is asked. Wording and rubric are ours; the paper gives the scale.
std::string judge_prompt(std::string_view question, std::span<const std::string> answers, std::string_view prediction);

/// N of the last "score: N" of a reply, 0 <= N <= 5; nothing where there is none.
std::optional<double> score_in_reply(std::string_view reply);

class Judge {
 public:
  /// Throws Error for a URL that is none.
  explicit Judge(JudgeOptions options);
  ~Judge();

  /// Nothing where the reply holds no score. Throws Error when the endpoint gives no reply.
  std::optional<double> grade(std::string_view question, std::span<const std::string> answers,
                              std::string_view prediction) const;

 private:
  struct Connection;
  std::string reply_to(const std::string& prompt) const;

  JudgeOptions options_;
  std::unique_ptr<Connection> connection_;
};

}  // namespace msa::eval
