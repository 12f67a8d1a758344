#include "server/server.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <chrono>
#include <utility>

#include "server/routes.h"

namespace msa::server {
namespace {

void write_error(httplib::Response& out, const HttpError& error) {
  out.status = error.status;
  if (error.status == 401) out.set_header("WWW-Authenticate", "Bearer");
  if (error.status == 429 || error.status == 503) out.set_header("Retry-After", "1");
  out.set_content(dump(to_json(error)), "application/json");
}

/// What the library answers by itself.
HttpError of_library(int status) {
  switch (status) {
    case 404: return {404, "there is no such route (fix: see docs/server.md)", "", "not_found"};
    case 413: return {413, "the body is too large", "", "body_too_large"};
    default: return {status, "the request could not be read", "", ""};
  }
}

}  // namespace

bool is_loopback(const std::string& host) { return host == "localhost" || host == "::1" || host.starts_with("127."); }

Server::Server(const Backend& backend, const ServerOptions& options)
    : routes_(std::make_unique<Routes>(backend, options)) {}
Server::~Server() = default;
int Server::port() const { return routes_->port(); }
void Server::stop() { routes_->stop(); }

Server::Routes::Routes(const Backend& backend, const ServerOptions& options)
    : backend_(backend), options_(options), queue_(options.max_queue) {
  if (!options.keys.required() && !is_loopback(options.host)) {
    throw Error("everybody who reaches this address could read and change the memory", "--host " + options.host,
                "give --keys FILE, or serve 127.0.0.1");
  }
  // A request that waits for the engine keeps its thread; some more read, refuse and list meanwhile.
  const size_t threads = options.max_queue + 16;
  http_.new_task_queue = [threads] { return new httplib::ThreadPool(threads); };
  http_.set_payload_max_length(options.max_body_bytes);
  http_.set_read_timeout(options.read_seconds);
  http_.set_write_timeout(options.read_seconds);
  http_.set_keep_alive_max_count(10000);
  http_.set_tcp_nodelay(true);
  http_.set_socket_options([](socket_t socket) {  // a port in use is an error: two servers never share one
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  http_.set_pre_routing_handler([](const httplib::Request& in, httplib::Response& out) {
    if (!in.has_header("Transfer-Encoding")) return httplib::Server::HandlerResponse::Unhandled;
    // The library bounds a body by the length that is announced; one in chunks has none.
    out.set_header("Connection", "close");
    write_error(out, {411, "a body in chunks is not taken (fix: send Content-Length)", "", "length_required"});
    return httplib::Server::HandlerResponse::Handled;
  });
  http_.set_error_handler([](const httplib::Request&, httplib::Response& out) {
    if (out.body.empty()) write_error(out, of_library(out.status));
  });
  add_common_routes();
  add_completion_routes();
  add_memory_routes();
  port_ = options.port;
  const bool bound = options.port == 0 ? (port_ = http_.bind_to_any_port(options.host)) > 0
                                       : http_.bind_to_port(options.host, options.port);
  if (!bound) {
    throw Error("cannot listen there", options.host + ":" + std::to_string(options.port),
                "is another program on this port? --port 0 takes any that is free");
  }
  thread_ = std::thread([this] {
    // The library takes an interrupted accept() for the end: signals are for other threads.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    http_.listen_after_bind();
    has_ended_ = true;
  });
}

Server::Routes::~Routes() { stop(); }

void Server::Routes::stop() {
  if (!thread_.joinable()) return;
  while (!http_.is_running() && !has_ended_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  http_.stop();
  queue_.close();
  thread_.join();
}

httplib::Server::Handler Server::Routes::handled(std::string label, Handler handler, Door door) {
  return [this, label = std::move(label), handler = std::move(handler), door](const httplib::Request& in,
                                                                              httplib::Response& out) {
    const auto start = std::chrono::steady_clock::now();
    out.status = 200;
    Call call{in, out, {}};
    try {
      const auto access = options_.keys.find(in.get_header_value("Authorization"));
      if (!access && door == Door::kKey) {
        throw HttpError{401, "an Authorization header with a known bearer key is needed", "", "invalid_api_key"};
      }
      if (access) call.access = *access;
      handler(call);
    } catch (const HttpError& e) {
      write_error(out, e);
    } catch (const Error& e) {
      spdlog::warn("{} {}: {}", in.method, label, e.what());
      write_error(out, to_http(e));
    } catch (const std::exception& e) {
      spdlog::error("{} {}: {}", in.method, label, e.what());
      write_error(out, {500, "an error of the server's own: " + std::string(e.what()), "", ""});
    }
    if (!call.is_streamed) metrics_.count_request(label, out.status, start);
  };
}

void Server::Routes::reply(Call& call, int status, const Json& body) {
  call.out.status = status;
  call.out.set_content(dump(body), "application/json");
}

void Server::Routes::add_common_routes() {
  http_.Get("/health", handled(
                           "/health",
                           [this](Call& call) {
                             reply(call, 200, {{"status", "ok"}, {"documents", backend_.bank.size()}});
                           },
                           Door::kOpen));
  http_.Get("/metrics", handled("/metrics", [this](Call& call) {
              const BankStatistics bank = backend_.bank.statistics();
              call.out.set_content(
                  metrics_.text({queue_.size(), queue_.capacity(), bank.documents, bank.chunks, bank.tokens}),
                  "text/plain; version=0.0.4");
            }));
  const Json model = {{"id", backend_.model_name}, {"object", "model"}, {"created", 0}, {"owned_by", "msa"}};
  http_.Get("/v1/models", handled("/v1/models", [model](Call& call) {
              reply(call, 200, {{"object", "list"}, {"data", Json::array({model})}});
            }));
  http_.Get("/v1/models/(.+)", handled("/v1/models/{id}", [this, model](Call& call) {
              check_model(call.in.matches[1]);
              reply(call, 200, model);
            }));
}

}  // namespace msa::server
