// A memory that tells what it routed: of one process, or of several.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "engine/device_routing.h"
#include "model/memory.h"
#include "router/router.h"

namespace msa {

/// What a memory is asked.
struct MemoryQuery {
  int top_k = 0;                      // documents of a layer
  std::vector<uint8_t> allowed = {};  // [slots] of the snapshot (empty = all): others are never scored, nor selected
  bool late = false;                  // late_scores() are going to be asked for
};

/// What no rank could be asked about; nothing in one process.
struct MissingShare {
  int64_t documents = 0, of_documents = 0;  // live ones
  int64_t chunks = 0, of_chunks = 0;
  std::vector<std::string> why;  // a sentence for each rank
  bool any() const { return !why.empty(); }
};

/// One query's view of one snapshot. Segments, indices and slots are the snapshot's.
class RoutedMemory : public Memory {
 public:
  /// The `count` best documents by mean score over the routing layers, highest first. Empty before the first route.
  virtual std::vector<ScoredDocument> routed(int count) const = 0;
  /// Of the last route() that a gather() followed.
  virtual const std::vector<ScoredDocument>& selection(int routing_index) const = 0;
  /// [slots]; empty before the first route.
  virtual std::span<const float> scores(int routing_index) const = 0;
  /// The same query's late-interaction scores (Router::late_scores), the mean over the layers: what the ids' prior adds
  /// to tell the routed documents apart. Empty before the first route. Only where the query is `late`.
  virtual std::vector<float> late_scores(std::span<const ScoredDocument> documents) const = 0;
  /// One document's score in every routing layer.
  virtual std::vector<float> layer_scores(const ScoredDocument& document) const = 0;
  virtual size_t slot_of(const ScoredDocument& document) const = 0;  // its place in scores()
  virtual double route_milliseconds() const = 0;
  /// How far quantised keys decided, in the layers routed last.
  virtual DeviceRouting::Statistics statistics() const = 0;
  virtual MissingShare missing() const { return {}; }
};

}  // namespace msa
