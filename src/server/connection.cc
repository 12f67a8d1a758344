#include "server/connection.h"

#include <httplib.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <filesystem>
#include <string>

namespace msa::server {
namespace {

using NameOf = int(int, sockaddr*, socklen_t*);  // getsockname or getpeername

bool is_end(int socket, NameOf name_of, const std::string& address, int port) {
  sockaddr_storage name{};
  auto* generic = reinterpret_cast<sockaddr*>(&name);
  socklen_t size = sizeof name;
  char host[NI_MAXHOST], service[NI_MAXSERV];
  return name_of(socket, generic, &size) == 0 &&
         getnameinfo(generic, size, host, sizeof host, service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV) == 0 &&
         address == host && std::to_string(port) == service;
}

}  // namespace

Connection::Connection(const httplib::Request& in) {
  std::error_code problem;
  using Files = std::filesystem::directory_iterator;
  for (Files file("/proc/self/fd", problem); !problem && file != Files(); file.increment(problem)) {
    const int socket = std::stoi(file->path().filename());
    if (!is_end(socket, getpeername, in.remote_addr, in.remote_port)) continue;
    if (!is_end(socket, getsockname, in.local_addr, in.local_port)) continue;
    socket_ = socket;
    return;
  }
}

bool Connection::is_closed() const {
  pollfd state{socket_, POLLRDHUP, 0};  // a file below 0 is passed over
  return poll(&state, 1, 0) > 0;
}

}  // namespace msa::server
