// The HTTP server: threads of the library read and check requests, one engine thread answers them (DESIGN section 6).
#pragma once
#include <cstddef>
#include <memory>
#include <string>

#include "server/backend.h"
#include "server/keys.h"

namespace msa::server {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;        // 0: any that is free
  size_t max_queue = 64;  // requests that wait for the engine
  size_t max_body_bytes = 16u << 20;
  int read_seconds = 30;  // for a request to arrive
  Keys keys;
};

/// Whether an address reaches this machine alone.
bool is_loopback(const std::string& host);

class Server {
 public:
  /// Listens from now on. Throws Error where it cannot, or where an address beyond this machine is served without keys.
  Server(const Backend& backend, const ServerOptions& options);
  ~Server();  // stops
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  /// Takes no more requests, lets those that run come to their end, refuses those that wait.
  void stop();

 private:
  class Routes;
  std::unique_ptr<Routes> routes_;
};

}  // namespace msa::server
