// What /metrics shows, in Prometheus' text format.
#pragma once
#include <chrono>
#include <memory>
#include <string>

namespace msa::server {

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  /// `start`: when the request came; it ends now.
  void count_request(const std::string& route, int status, std::chrono::steady_clock::time_point start);
  void count_answer(int prompt_tokens, int answer_tokens);
  void count_added(int64_t documents, int64_t tokens);

  /// Of the moment.
  struct Now {
    size_t queued = 0, queue_capacity = 0;
    int64_t documents = 0, chunks = 0, tokens = 0;
  };
  std::string text(const Now& now);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace msa::server
