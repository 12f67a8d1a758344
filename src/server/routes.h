// The server's inside: one httplib server, the engine's queue, and what every route shares.
#pragma once
#include <httplib.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "engine/document_adder.h"
#include "server/engine_queue.h"
#include "server/http_error.h"
#include "server/metrics.h"
#include "server/server.h"

namespace msa::server {

class Server::Routes {
 public:
  Routes(const Backend& backend, const ServerOptions& options);
  ~Routes();

  int port() const { return port_; }
  void stop();

 private:
  /// One request on its way.
  struct Call {
    const httplib::Request& in;
    httplib::Response& out;
    Access access;
    bool is_streamed = false;  // counted when the stream ends
  };
  using Handler = std::function<void(Call&)>;
  enum class Door { kOpen, kKey };  // whether a key is asked for

  /// `label`: the route's name in the metrics. What `handler` throws becomes the reply.
  httplib::Server::Handler handled(std::string label, Handler handler, Door door = Door::kKey);
  static void reply(Call& call, int status, const Json& body);
  void add_common_routes();

  // completion_routes.cc
  void add_completion_routes();
  void complete(Call& call, bool is_chat);
  void stream(Call& call, const struct CompletionRequest& request, const AskOptions& ask);
  void check_model(const std::string& name) const;

  // memory_routes.cc
  void add_memory_routes();
  void list_memories(Call& call);
  void add_memories(Call& call);
  void search_memories(Call& call);
  void replace_memory(Call& call);
  void change_memory(Call& call);
  void delete_memory(Call& call);
  /// Encoded and committed; `instead_of` ends in the same commit, or DocumentGone is thrown.
  AddReport add(const std::string& name_space, bool replace, std::span<const NewDocument> documents,
                const DocumentRecord* instead_of = nullptr);
  /// Of the id in the path, live and permitted; throws HttpError (404, 403).
  DocumentRecord found(const Call& call, bool to_write) const;
  void need_writable() const;

  Backend backend_;
  ServerOptions options_;
  Metrics metrics_;
  EngineQueue queue_;
  httplib::Server http_;
  int port_ = 0;
  std::atomic<bool> has_ended_ = false;
  std::thread thread_;
};

}  // namespace msa::server
