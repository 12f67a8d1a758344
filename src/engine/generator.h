// Memory Interleave (paper section 3.4): route, write document ids, fetch their text, route again … then answer.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bank/bank.h"
#include "engine/bank_memory.h"
#include "engine/model.h"
#include "engine/sampler.h"

namespace msa {

class ShardDriver;

/// Which documents a question may see, and as of when.
struct DocumentScope {
  std::string filter;  // as Filter::parse takes it; blank: all
  std::string as_of;   // a time; empty: now
};

struct AskOptions {
  int top_k = 0;          // documents attended in each routing layer; 0: the model's own number
  int max_hops = 4;       // rounds of fetching; 0 answers from the routed content alone
  int max_documents = 8;  // fetched in all
  int max_documents_per_hop = 4;
  int rerank = -1;  // candidates read before one is cited, in each hop; -1: the model's own number
  /// In [0, 1]. Above 0 only documents that were read and found at least as relevant are cited, and without any there
  /// is no answer but kNotFound.
  float min_relevance = 0;
  int64_t max_fetched_bytes = 64 << 10;  // text of all fetched documents
  int max_answer_tokens = 128;
  DocumentScope scope;
  SamplingOptions sampling;  // of the answer; ids are always decoded greedily
  /// Asked before each hop and before the answer; true ends the question with stop_reason "cancelled". May be empty.
  std::function<bool()> cancelled = {};
};

enum class HopEnd {
  kFetched,         // documents were fetched, the next hop follows
  kModelEnded,      // the model wrote End-of-Retrieve
  kHopLimit,        // max_hops
  kDocumentLimit,   // max_documents
  kByteLimit,       // max_fetched_bytes: the document chosen did not fit
  kContextLimit,    // no room left in the model's context
  kNothingToFetch,  // no live document, or all routed ones are fetched already
  kNotRelevant,     // no candidate reached min_relevance
};
const char* describe(HopEnd end);

struct RoutedDocument {
  DocumentId id = 0;
  std::string external_id;
  float score = 0;            // mean over the routing layers
  std::vector<float> layers;  // score of each routing layer
};

/// A candidate that was read before one was cited.
struct ReadCandidate {
  DocumentId id = 0;
  float prior = 0;      // the router's probability among the candidates
  float relevance = 0;  // the model's probability that its text helps to answer the question
};

struct HopTrace {
  std::vector<RoutedDocument> routed;  // by mean score, highest first, top_k of them
  std::vector<ReadCandidate> read;     // in the order of reading
  std::string generated;               // what the model wrote, ids and control tokens included
  std::vector<DocumentId> fetched;
  HopEnd end = HopEnd::kFetched;
  int prompt_tokens = 0;
  double prefill_ms = 0, route_ms = 0, rerank_ms = 0, decode_ms = 0;
  DeviceRouting::Statistics routing;
};

struct FetchedDocument {
  DocumentId id = 0;
  std::string external_id;
  std::string text;
  int hop = 0;                          // from 1
  std::optional<float> relevance = {};  // where it was read before it was cited
};

/// A document chosen elsewhere.
struct GivenDocument {
  DocumentId id = 0;  // as it is to be cited
  std::string external_id;
  std::string text;
};

/// Text of an answer that min_relevance refused.
constexpr const char* kNotFound = "Nothing in the memory answers this.";

struct Answer {
  std::string text;
  std::string stop_reason;  // "stop", "length", "context", "not_found" or "cancelled"
  std::vector<FetchedDocument> documents;
  std::vector<HopTrace> hops;
  int prompt_tokens = 0;  // of the last hop, all appended text included
  int answer_tokens = 0;
  double answer_ms = 0;  // decoding of the answer alone
  double total_ms = 0;
  MissingShare missing;  // of the memory, where ranks were lost
};

struct Routing {
  std::vector<RoutedDocument> documents;     // by mean score, highest first
  std::shared_ptr<const Snapshot> snapshot;  // where their records are found
  double route_ms = 0;
  MissingShare missing;
};

/// Called with each piece of the answer as it is decoded (complete UTF-8). Returning false stops the answer.
using AnswerCallback = std::function<bool(std::string_view)>;

class Generator {
 public:
  /// `ranks` (may be null): the ranks that the bank is shared out among, this one included.
  Generator(const Model& model, const Bank& bank, const DeviceOptions& device = {}, ShardDriver* ranks = nullptr);

  /// Throws Error for an empty question or one beyond the model's context, and where candidates are to be read and the
  /// model has no prompts for it. An empty bank is no error: the answer then
  /// comes without documents and the trace says so.
  Answer ask(Context& context, std::string_view question, const AskOptions& options, const AnswerCallback& stream = {});

  /// The answer to a question whose documents are given: they are cited and stand in the prompt as if one hop had
  /// fetched them, nothing is routed. What no longer fits the bounds is left out, from the first such document on.
  Answer read(Context& context, std::string_view question, std::span<const GivenDocument> documents,
              const AskOptions& options);

  /// One route without generation.
  Routing route(Context& context, std::string_view question, int count, const DocumentScope& scope = {});

 private:
  const Model& model_;
  const Bank& bank_;
  DeviceBank device_;
  ShardDriver* ranks_;
};

}  // namespace msa
