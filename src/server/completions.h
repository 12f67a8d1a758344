// /v1/chat/completions and /v1/completions: requests read, replies written. No HTTP here.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/generator.h"
#include "server/json.h"
#include "server/scope.h"

namespace msa::server {

struct CompletionRequest {
  bool is_chat = true;
  std::string model;
  std::string question;
  AskOptions ask;  // without the scope
  ScopeRequest scope;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool stream = false, include_usage = false, trace = false;
};

/// Throws HttpError (400) for what is missing, wrong, or would change the answer and is not supported.
/// `bank`: the name that memory.bank may have.
CompletionRequest read_chat_request(const Json& body, const std::string& bank);
CompletionRequest read_completion_request(const Json& body, const std::string& bank);

/// The question that a conversation asks: its last message, which must be the user's. Earlier messages stand before it,
/// one "role: content" a line.
std::string question_of(const Json& messages);

/// Of one reply, whole or in pieces.
class CompletionReply {
 public:
  CompletionReply(const CompletionRequest& request, std::vector<int> routing_layers, int64_t created);

  Json whole(const std::string& text, const Answer& answer, bool stopped) const;
  Json first() const;  // of a chat's stream: the role
  Json piece(const std::string& text) const;
  Json last(const Answer& answer, bool stopped) const;
  Json usage(const Answer& answer) const;  // a chunk of its own, without choices

 private:
  Json frame(bool is_stream) const;
  Json choice(Json content, Json finish, bool is_stream) const;
  Json memory(const Answer& answer) const;

  bool is_chat_, trace_;
  std::string id_, model_;
  int64_t created_;
  std::vector<int> layers_;
};

}  // namespace msa::server
