// What a request is answered with when it cannot be served: OpenAI's error object.
#pragma once
#include <string>

#include "core/error.h"
#include "server/json.h"

namespace msa::server {

struct HttpError {
  int status = 400;
  std::string message;  // what, and the fix
  std::string param;    // the field at fault; may be empty
  std::string code;     // for programs, as "context_length_exceeded"; may be empty
};

/// {"error": {"message", "type", "param", "code"}}
Json to_json(const HttpError& error);

/// 400 where a question, filter or time is at fault, 409 for a DocumentConflict, 503 for a lost rank, else 500.
HttpError to_http(const Error& error);

}  // namespace msa::server
