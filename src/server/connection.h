// Whether the client of a request still waits for the reply.
#pragma once

namespace httplib {
struct Request;
}

namespace msa::server {

/// The library does not tell a handler its socket: it is looked for by its two ends.
class Connection {
 public:
  explicit Connection(const httplib::Request& in);

  /// Whether the client has closed its side. From any thread, until the reply is sent: then the socket may be
  /// another's.
  bool is_closed() const;

 private:
  int socket_ = -1;  // not found: never closed
};

}  // namespace msa::server
