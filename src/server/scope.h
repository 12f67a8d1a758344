// Which documents a request may see: what it asks for, within what its key may read.
#pragma once
#include <string>
#include <vector>

#include "engine/generator.h"
#include "server/json.h"
#include "server/keys.h"

namespace msa::server {

struct ScopeRequest {
  std::vector<std::string> namespaces;  // none: all that the key may read
  std::string filter, as_of;
};

/// The fields namespace, filter and as_of.
ScopeRequest read_scope(const Fields& fields);

/// Throws HttpError: 403 for a namespace that the key may not read, 400 for a filter that is none. A time that is none
/// shows when the state of then is opened.
DocumentScope permitted_scope(const ScopeRequest& request, const Access& access);

}  // namespace msa::server
