#include "server/answer_json.h"

#include <utility>

namespace msa::server {

Json documents_json(const Answer& answer) {
  Json documents = Json::array();
  for (const FetchedDocument& d : answer.documents) {
    documents.push_back({{"id", d.id}, {"external_id", d.external_id}, {"hop", d.hop}, {"text", d.text}});
    if (d.relevance) documents.back()["relevance"] = *d.relevance;
  }
  return documents;
}

Json hops_json(const Answer& answer, const std::vector<int>& layers) {
  Json hops = Json::array();
  for (const HopTrace& h : answer.hops) {
    Json routed = Json::array();
    for (const RoutedDocument& d : h.routed) {
      Json scores = Json::object();
      for (size_t i = 0; i < layers.size(); ++i) scores[std::to_string(layers[i])] = d.layers[i];
      routed.push_back({{"id", d.id}, {"external_id", d.external_id}, {"score", d.score}, {"layers", scores}});
    }
    Json read = Json::array();
    for (const ReadCandidate& c : h.read)
      read.push_back({{"id", c.id}, {"prior", c.prior}, {"relevance", c.relevance}});
    hops.push_back(
        {{"routed", std::move(routed)},
         {"read", std::move(read)},
         {"generated", h.generated},
         {"fetched", h.fetched},
         {"end", describe(h.end)},
         {"tokens", h.prompt_tokens},
         {"ms", {{"prefill", h.prefill_ms}, {"route", h.route_ms}, {"rerank", h.rerank_ms}, {"decode", h.decode_ms}}}});
    if (h.routing.bounded) {
      hops.back()["quantised_keys"] = {{"chunks", h.routing.chunks},
                                       {"candidates", h.routing.candidates},
                                       {"layers_fallen_back", h.routing.fell_back}};
    }
  }
  return hops;
}

Json missing_json(const MissingShare& missing) {
  const auto share = [](int64_t n, int64_t of) {
    return of == 0 ? 0.0 : static_cast<double>(n) / static_cast<double>(of);
  };
  return {{"documents", missing.documents},
          {"of_documents", missing.of_documents},
          {"chunks", missing.chunks},
          {"of_chunks", missing.of_chunks},
          {"share_of_chunks", share(missing.chunks, missing.of_chunks)},
          {"ranks", missing.why}};
}

}  // namespace msa::server
