// Answers as JSON: what `msa ask --json` and the server say of one.
#pragma once
#include <vector>

#include "engine/generator.h"
#include "server/json.h"

namespace msa::server {

Json documents_json(const Answer& answer);
/// `layers`: the routing layers, whose scores a routed document has.
Json hops_json(const Answer& answer, const std::vector<int>& layers);
/// What a degraded answer lacks.
Json missing_json(const MissingShare& missing);

}  // namespace msa::server
