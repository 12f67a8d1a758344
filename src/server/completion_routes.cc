#include <chrono>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <exception>
#include <mutex>
#include <random>
#include <utility>

#include "io/text.h"
#include "server/completions.h"
#include "server/connection.h"
#include "server/routes.h"
#include "server/stop_filter.h"

namespace msa::server {
namespace {

constexpr int kClientLeft = 499;  // nobody reads this status but the metrics

struct Finished {
  Answer answer;
  std::string text;
  bool stopped = false;  // by a stop sequence
};

/// On the engine thread. `send` gets what stop sequences let through, and ends the answer by returning false.
Finished answer(const Backend& b, const CompletionRequest& request, const AskOptions& options,
                const std::function<bool(std::string)>& send) {
  StopFilter filter(request.stop);
  Finished out;
  const auto pass = [&](std::string text) {
    if (out.text.empty()) text.erase(0, text.find_first_not_of(' '));  // the prompt's end and the answer are two words
    out.text += text;
    return text.empty() || send(std::move(text));
  };
  bool goes_on = true;
  out.answer = b.generator.ask(b.context, request.question, options, [&](std::string_view piece) {
    goes_on = pass(filter.feed(piece));
    return goes_on && !filter.stopped();
  });
  if (goes_on) pass(filter.finish());
  out.stopped = filter.stopped();
  return out;
}

/// Between the engine thread, which writes an answer, and the HTTP thread, which sends it.
class Channel {
 public:
  /// False: nobody reads any more.
  bool write(std::string piece) {
    const std::lock_guard lock(mutex_);
    if (abandoned_) return false;
    pieces_.push_back(std::move(piece));
    changed_.notify_one();
    return true;
  }
  void end(Finished finished) {
    const std::lock_guard lock(mutex_);
    finished_ = std::move(finished);
    changed_.notify_one();
  }
  void fail(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    error_ = std::move(error);
    changed_.notify_one();
  }
  void abandon() {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
  }
  bool is_abandoned() const {
    const std::lock_guard lock(mutex_);
    return abandoned_;
  }

  /// Waits for a first piece, or the end. Throws what the engine threw before either.
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !pieces_.empty() || finished_ || error_; });
    if (pieces_.empty() && error_) std::rethrow_exception(error_);
  }
  /// All pieces that are there, waiting up to `patience` for one; `ended` once nothing follows. Throws what the engine
  /// threw.
  std::deque<std::string> read(std::chrono::milliseconds patience, const Finished** ended) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [this] { return !pieces_.empty() || finished_ || error_; });
    if (pieces_.empty() && error_) std::rethrow_exception(error_);
    *ended = finished_ ? &*finished_ : nullptr;
    return std::exchange(pieces_, {});
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> pieces_;
  std::optional<Finished> finished_;
  std::exception_ptr error_;
  bool abandoned_ = false;
};

bool send_event(httplib::DataSink& sink, const std::string& data) {
  const std::string event = "data: " + data + "\n\n";
  return sink.write(event.data(), event.size());
}

}  // namespace

void Server::Routes::check_model(const std::string& name) const {
  if (name == backend_.model_name) return;
  throw HttpError{
      404, "the model '" + printable(name, 60) + "' is not here (fix: this server has '" + backend_.model_name + "')",
      "model", "model_not_found"};
}

void Server::Routes::add_completion_routes() {
  http_.Post("/v1/chat/completions", handled("/v1/chat/completions", [this](Call& call) { complete(call, true); }));
  http_.Post("/v1/completions", handled("/v1/completions", [this](Call& call) { complete(call, false); }));
}

void Server::Routes::complete(Call& call, bool is_chat) {
  const Json body = parse_object(call.in.body);
  const CompletionRequest request =
      is_chat ? read_chat_request(body, backend_.bank_name) : read_completion_request(body, backend_.bank_name);
  check_model(request.model);
  if (is_blank(request.question)) {
    throw HttpError{400, "the question is empty", is_chat ? "messages" : "prompt", "missing_value"};
  }
  AskOptions ask = request.ask;
  ask.scope = permitted_scope(request.scope, call.access);
  ask.sampling.seed = request.seed.value_or(std::random_device{}());
  const Connection connection(call.in);
  ask.cancelled = [connection] { return connection.is_closed(); };
  if (request.stream) return stream(call, request, ask);
  const auto send = [&](const std::string&) { return !connection.is_closed(); };
  const Finished done = queue_.run([&] { return answer(backend_, request, ask, send); });
  if (done.answer.stop_reason == "cancelled" && !done.stopped) {
    throw HttpError{kClientLeft, "the client has left", "", "client_left"};
  }
  metrics_.count_answer(done.answer.prompt_tokens, done.answer.answer_tokens);
  const CompletionReply writer(request, backend_.model.config().memory.routing_layers, std::time(nullptr));
  reply(call, 200, writer.whole(done.text, done.answer, done.stopped));
}

void Server::Routes::stream(Call& call, const CompletionRequest& request, const AskOptions& ask) {
  const auto start = std::chrono::steady_clock::now();
  const auto channel = std::make_shared<Channel>();
  queue_.push([this, channel, request, ask] {
    try {
      queue_.refuse_if_closed();
      AskOptions options = ask;
      options.cancelled = [&] { return channel->is_abandoned() || ask.cancelled(); };
      channel->end(
          answer(backend_, request, options, [&](std::string text) { return channel->write(std::move(text)); }));
    } catch (...) {
      channel->fail(std::current_exception());
    }
  });
  channel->wait();  // an answer that cannot begin is an error of its own, with its status
  const auto writer =
      std::make_shared<CompletionReply>(request, backend_.model.config().memory.routing_layers, std::time(nullptr));
  const std::string label = call.in.path;
  call.is_streamed = true;
  call.out.set_header("Cache-Control", "no-cache");
  const auto provide = [this, channel, writer, is_chat = request.is_chat, usage = request.include_usage, begun = false](
                           size_t, httplib::DataSink& sink) mutable {
    if (!begun && is_chat && !send_event(sink, dump(writer->first()))) return false;
    begun = true;
    try {
      const Finished* ended = nullptr;
      for (const std::string& text : channel->read(std::chrono::seconds(1), &ended)) {
        if (!send_event(sink, dump(writer->piece(text)))) return false;
      }
      if (ended == nullptr) return sink.is_writable();
      metrics_.count_answer(ended->answer.prompt_tokens, ended->answer.answer_tokens);
      if (!send_event(sink, dump(writer->last(ended->answer, ended->stopped)))) return false;
      if (usage && !send_event(sink, dump(writer->usage(ended->answer)))) return false;
    } catch (const HttpError& e) {
      send_event(sink, dump(to_json(e)));
    } catch (const Error& e) {
      send_event(sink, dump(to_json(to_http(e))));
    } catch (const std::exception& e) {
      send_event(sink, dump(to_json({500, "an error of the server's own: " + std::string(e.what()), "", ""})));
    }
    send_event(sink, "[DONE]");
    sink.done();
    return true;
  };
  call.out.set_chunked_content_provider("text/event-stream", provide, [this, channel, label, start](bool success) {
    channel->abandon();
    metrics_.count_request(label, success ? 200 : kClientLeft, start);
  });
}

}  // namespace msa::server
