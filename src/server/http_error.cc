#include "server/http_error.h"

#include "engine/document_adder.h"
#include "engine/shard_driver.h"

namespace msa::server {

Json to_json(const HttpError& error) {
  const char* type = error.status == 401   ? "authentication_error"
                     : error.status == 403 ? "permission_error"
                     : error.status == 429 ? "rate_limit_error"
                     : error.status >= 500 ? "server_error"
                                           : "invalid_request_error";
  const auto or_null = [](const std::string& s) { return s.empty() ? Json(nullptr) : Json(s); };
  return {
      {"error",
       {{"message", error.message}, {"type", type}, {"param", or_null(error.param)}, {"code", or_null(error.code)}}}};
}

HttpError to_http(const Error& error) {
  if (dynamic_cast<const DocumentConflict*>(&error) != nullptr) {
    return {409, error.problem() + " (fix: send \"replace\": true, or delete it first)", "id", "document_exists"};
  }
  if (dynamic_cast<const DocumentGone*>(&error) != nullptr) {
    return {404, "there is no memory " + error.where() + ": " + error.problem(), "id", "not_found"};
  }
  const std::string text = error.what();
  if (error.where() == "question") {
    return {400, text, "messages",
            error.problem().find("tokens") == std::string::npos ? "" : "context_length_exceeded"};
  }
  if (error.where() == "filter") return {400, text, "filter", "invalid_filter"};
  if (error.where() == "rerank") return {400, text, "memory.rerank", "unsupported_value"};
  if (error.where() == "min_relevance") return {400, text, "memory.min_relevance", "unsupported_value"};
  if (error.where() == "time") return {400, text, "as_of", "invalid_time"};
  if (dynamic_cast<const LostRank*>(&error) != nullptr) return {503, text, "", "rank_lost"};
  return {500, text, "", ""};
}

}  // namespace msa::server
