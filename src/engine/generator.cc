#include "engine/generator.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <set>
#include <utility>

#include "bank/filter.h"
#include "engine/id_decoder.h"
#include "engine/reranker.h"
#include "engine/session.h"
#include "engine/sharded_memory.h"

namespace msa {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::vector<uint8_t> permitted(const Bank& bank, const Snapshot& snapshot, const DocumentScope& scope) {
  const Filter filter = Filter::parse(scope.filter);
  return filter.kind == Filter::Kind::kAll ? std::vector<uint8_t>{} : bank.permitted(snapshot, filter);
}

/// How many candidates of a hop are read.
int candidates_read(const Model& model, const AskOptions& options) {
  return options.rerank >= 0 ? options.rerank : model.prompts().rerank.documents;
}

void check_reading(const Model& model, const AskOptions& options) {
  const int read = candidates_read(model, options);
  if (read > 0 && model.prompts().rerank.yes < 0) {
    throw Error("this model has no prompts for reading candidates", "rerank",
                "leave the option out, or add id_decoding.rerank to its msa_template.json");
  }
  if (read == 0 && options.min_relevance > 0) {
    throw Error("no candidate is read, so none has a relevance", "min_relevance",
                "leave it out, or let candidates be read with rerank");
  }
}

/// One question on its way through the hops.
class Interleave {
 public:
  /// Where the bank lies: on this process's device alone, or, where `ranks` is not null, on several ranks.
  struct Place {
    DeviceBank& device;
    ShardDriver* ranks;
  };

  Interleave(Context& context, const Model& model, const Bank& bank, std::string_view question,
             const AskOptions& options, const Place& place)
      : model_(model),
        bank_(bank),
        question_(question),
        options_(options),
        top_k_(options.top_k > 0 ? options.top_k : model.config().memory.top_k_documents),
        snapshot_(options.scope.as_of.empty() ? bank.snapshot() : bank.snapshot_at(options.scope.as_of)),
        memory_owner_(make_memory(context, place)),
        memory_(*memory_owner_),
        session_(context, model.transformer(), model.head(), &memory_, model.head().length() + top_k_),
        transcript_(model.prompts().query(question)) {}

  Answer run(Context& context, const AnswerCallback& stream) {
    const auto start = Clock::now();
    while (!is_cancelled() && !retrieval_is_over(context)) {
    }
    if (is_cancelled()) {
      answer_.stop_reason = "cancelled";
    } else if (options_.min_relevance > 0 && answer_.documents.empty()) {
      answer_.stop_reason = "not_found";
      answer_.text = kNotFound;
      if (stream) stream(answer_.text);
    } else {
      write_answer(context, stream);
    }
    answer_.missing = memory_.missing();
    answer_.total_ms = ms_since(start);
    return std::move(answer_);
  }

  Answer read(Context& context, std::span<const GivenDocument> documents) {
    const auto start = Clock::now();
    HopTrace hop;
    cite_given(documents, hop);
    prefill(context, hop);
    hop.end = limit_hit_.value_or(HopEnd::kFetched);
    answer_.hops.push_back(std::move(hop));
    write_answer(context, {});
    answer_.total_ms = ms_since(start);
    return std::move(answer_);
  }

  Routing route_only(Context& context, int count) {
    Routing out;
    logits_ = session_.feed(context, transcript_.tokens, transcript_.routed);
    out.route_ms = memory_.route_milliseconds();
    out.documents = routed_documents(count);
    out.snapshot = snapshot_;
    out.missing = memory_.missing();
    return out;
  }

 private:
  std::unique_ptr<RoutedMemory> make_memory(Context& context, const Place& place) const {
    MemoryQuery query{top_k_, permitted(bank_, *snapshot_, options_.scope), model_.prompts().late_temperature > 0};
    if (place.ranks != nullptr) {
      return std::make_unique<ShardedMemory>(context, model_.config(), snapshot_, query, place.device, *place.ranks);
    }
    return std::make_unique<BankMemory>(model_.config(), snapshot_, std::move(query),
                                        place.device.keys(context, snapshot_), place.device.content(context));
  }

  bool is_cancelled() const { return options_.cancelled && options_.cancelled(); }

  /// One hop. True when it was the last one: the model or a bound ended retrieval.
  bool retrieval_is_over(Context& context) {
    HopTrace hop;
    prefill(context, hop);
    hop.routed = routed_documents(top_k_);
    hop.routing = memory_.statistics();
    const auto start = Clock::now();
    std::vector<DocumentId> chosen;
    hop.end = bound_reached().value_or(HopEnd::kFetched);
    if (hop.end == HopEnd::kFetched) hop.end = write_ids(context, hop, chosen);
    hop.decode_ms = ms_since(start) - hop.rerank_ms;
    if (hop.end == HopEnd::kFetched) hop.end = fetch(hop, chosen);
    const bool over = hop.end != HopEnd::kFetched;
    answer_.hops.push_back(std::move(hop));
    return over;
  }

  /// All ids of the hop, then all texts, as training shows them; nothing of it routes.
  void cite_given(std::span<const GivenDocument> documents, HopTrace& hop) {
    std::fill(transcript_.routed.begin(), transcript_.routed.end(), uint8_t{0});
    Prompt ids, texts;
    for (const GivenDocument& d : documents) {
      const std::vector<int32_t> id = model_.prompts().cite(d.id);
      const Prompt text = model_.prompts().fetched(d.id, model_.tokenizer().encode(d.text));
      const size_t used = transcript_.tokens.size() + ids.tokens.size() + texts.tokens.size();
      limit_hit_ = limit_of(used + id.size() + text.tokens.size(), d.text);
      if (limit_hit_) break;
      ids.append({id, std::vector<uint8_t>(id.size(), 0)});
      texts.append({text.tokens, std::vector<uint8_t>(text.tokens.size(), 0)});
      fetched_bytes_ += static_cast<int64_t>(d.text.size());
      hop.fetched.push_back(d.id);
      answer_.documents.push_back({d.id, d.external_id, d.text, 1});
    }
    hop.generated = model_.tokenizer().decode(ids.tokens, /*skip_special=*/false);
    transcript_.append(ids);
    transcript_.append(texts);
  }

  /// The bound that a text would break when the prompt had `tokens` with it.
  std::optional<HopEnd> limit_of(size_t tokens, const std::string& text) const {
    if (fetched_bytes_ + static_cast<int64_t>(text.size()) > options_.max_fetched_bytes) return HopEnd::kByteLimit;
    if (static_cast<int>(tokens) + kReserve > model_.config().max_positions - model_.head().length() - top_k_) {
      return HopEnd::kContextLimit;
    }
    return std::nullopt;
  }

  /// Everything so far is the query again, routed afresh.
  void prefill(Context& context, HopTrace& hop) {
    const auto start = Clock::now();
    const double routed_before = memory_.route_milliseconds();
    session_.restart();
    logits_ = session_.feed(context, transcript_.tokens, transcript_.routed);
    hop.prompt_tokens = static_cast<int>(transcript_.tokens.size());
    hop.prefill_ms = ms_since(start);
    hop.route_ms = memory_.route_milliseconds() - routed_before;
  }

  std::optional<HopEnd> bound_reached() const {
    if (limit_hit_) return limit_hit_;
    if (static_cast<int>(answer_.hops.size()) >= options_.max_hops) return HopEnd::kHopLimit;
    if (static_cast<int>(answer_.documents.size()) >= options_.max_documents) return HopEnd::kDocumentLimit;
    return std::nullopt;
  }

  std::vector<RoutedDocument> routed_documents(int count) const {
    std::vector<RoutedDocument> out;
    for (const ScoredDocument& d : memory_.routed(count)) {
      RoutedDocument r;
      r.id = d.id;
      r.score = d.score;
      if (const auto record = bank_.find(d.id, *snapshot_)) r.external_id = record->external_id;
      r.layers = memory_.layer_scores(d);
      out.push_back(std::move(r));
    }
    return out;
  }

  /// Ids that may be written: live, routed, not fetched in an earlier hop.
  std::vector<IdCandidate> candidates() const {
    const PromptTemplate& prompts = model_.prompts();
    std::vector<IdCandidate> out;
    std::vector<ScoredDocument> documents;
    for (const ScoredDocument& d : memory_.routed(top_k_ + static_cast<int>(answer_.documents.size()))) {
      if (fetched_.contains(d.id) || static_cast<int>(out.size()) == top_k_) continue;
      out.push_back({d.id, prompts.cite(d.id), 0});
      documents.push_back(d);
    }
    std::vector<float> scores, late;
    for (const ScoredDocument& d : documents) scores.push_back(d.score);
    if (prompts.late_temperature > 0) late = memory_.late_scores(documents);
    for (size_t i = 0; i < late.size(); ++i)
      scores[i] += late[i] * prompts.prior_temperature / prompts.late_temperature;
    const std::vector<double> prior = router_prior(scores, prompts.prior_temperature);
    for (size_t i = 0; i < out.size(); ++i) out[i].prior = prior[i];
    return out;
  }

  /// The model writes ids, or End-of-Retrieve. An id it has just written ends the hop when it comes again; with a
  /// hop_mass the prior of what was written decides instead, and no id comes twice.
  HopEnd write_ids(Context& context, HopTrace& hop, std::vector<DocumentId>& chosen) {
    std::vector<IdCandidate> permitted = candidates();
    if (permitted.empty()) return HopEnd::kNothingToFetch;
    const auto logit = [&](int32_t token) { return logits_[static_cast<size_t>(token)]; };
    const int32_t open = permitted.front().tokens.front();
    if (logit(model_.prompts().end_of_retrieve().front()) > logit(open)) return HopEnd::kModelEnded;
    read_best(context, permitted, hop);
    if (options_.min_relevance > 0) {
      std::erase_if(permitted, [&](const IdCandidate& c) { return relevance_of(c.id, hop) < options_.min_relevance; });
      if (permitted.empty()) return HopEnd::kNotRelevant;
    }
    const float hop_mass = model_.prompts().hop_mass;
    double mass = 0;  // of what was written
    const int limit =
        std::min(options_.max_documents_per_hop, options_.max_documents - static_cast<int>(answer_.documents.size()));
    while (static_cast<int>(chosen.size()) < limit && !permitted.empty()) {
      if (!chosen.empty() && (hop_mass > 0 ? mass >= hop_mass : argmax(logits_) != open)) break;
      if (session_.room() <= static_cast<int>(permitted.front().tokens.size()) + kReserve) return HopEnd::kContextLimit;
      const IdCandidate id = write_one_id(context, permitted);
      if (std::find(chosen.begin(), chosen.end(), id.id) != chosen.end()) break;
      chosen.push_back(id.id);
      transcript_.append({id.tokens, std::vector<uint8_t>(id.tokens.size(), 0)});
      hop.generated += model_.tokenizer().decode(id.tokens, /*skip_special=*/false);
      mass += id.prior;
      if (hop_mass > 0) std::erase_if(permitted, [&](const IdCandidate& c) { return c.id == id.id; });
    }
    return HopEnd::kFetched;
  }

  /// Moves the candidates' prior by what their texts say to the model, the best of them read in turn.
  void read_best(Context& context, std::vector<IdCandidate>& candidates, HopTrace& hop) {
    const PromptTemplate::Rerank& rerank = model_.prompts().rerank;
    const int most = candidates_read(model_, options_);
    if (most == 0 || (candidates.size() < 2 && options_.min_relevance == 0)) return;
    const auto start = Clock::now();
    std::vector<double> prior;
    for (const IdCandidate& c : candidates) prior.push_back(c.prior);
    std::vector<size_t> order(candidates.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return prior[a] > prior[b]; });
    order.resize(std::min(order.size(), static_cast<size_t>(most)));
    std::vector<std::string_view> earlier;
    for (const FetchedDocument& d : answer_.documents) earlier.push_back(d.text);
    Reranker reranker(context, model_, question_, earlier, model_.head().length() + top_k_);
    std::vector<std::optional<float>> log_odds(candidates.size());
    std::vector<double> posterior = prior;
    for (const size_t i : order) {
      const std::optional<DocumentRecord> record = bank_.find(candidates[i].id, *snapshot_);
      if (!record || !record->has_text) continue;
      log_odds[i] = reranker.log_odds(context, record->text);
      if (!log_odds[i]) continue;
      hop.read.push_back({candidates[i].id, static_cast<float>(prior[i]), probability(*log_odds[i])});
      posterior = weighed(prior, log_odds, rerank.weight);
      const bool is_settled = *std::max_element(posterior.begin(), posterior.end()) > rerank.confident;
      if (is_settled || is_cancelled()) break;
    }
    for (size_t i = 0; i < candidates.size(); ++i) candidates[i].prior = posterior[i];
    hop.rerank_ms = ms_since(start);
  }

  IdCandidate write_one_id(Context& context, const std::vector<IdCandidate>& permitted) {
    IdDecoder decoder(permitted, model_.prompts().prior_weight);
    while (true) {
      const int32_t token = decoder.best(logits_);
      const bool complete = decoder.take(token);
      logits_ = session_.feed(context, {&token, 1});
      if (complete) return decoder.result();
    }
  }

  /// Appends the chosen documents' text as far as the bounds allow.
  HopEnd fetch(HopTrace& hop, const std::vector<DocumentId>& chosen) {
    for (const DocumentId id : chosen) {
      const std::optional<DocumentRecord> record = bank_.find(id, *snapshot_);
      if (!record || !record->has_text) continue;  // removed and compacted meanwhile, or its text was withheld
      const Prompt text = model_.prompts().fetched(id, model_.tokenizer().encode(record->text));
      limit_hit_ = limit_of(transcript_.tokens.size() + text.tokens.size(), record->text);
      if (limit_hit_) break;
      fetched_bytes_ += static_cast<int64_t>(record->text.size());
      fetched_.insert(id);
      transcript_.append(text);
      hop.fetched.push_back(id);
      const int number = static_cast<int>(answer_.hops.size()) + 1;
      answer_.documents.push_back({id, record->external_id, record->text, number, relevance_of(id, hop)});
    }
    if (!hop.fetched.empty()) return HopEnd::kFetched;  // a limit that was hit ends the next hop
    return limit_hit_.value_or(HopEnd::kNothingToFetch);
  }

  /// Nothing where it was not read, which is less than any number.
  static std::optional<float> relevance_of(DocumentId id, const HopTrace& hop) {
    for (const ReadCandidate& c : hop.read) {
      if (c.id == id) return c.relevance;
    }
    return std::nullopt;
  }

  void write_answer(Context& context, const AnswerCallback& stream) {
    const PromptTemplate& prompts = model_.prompts();
    Prompt tail;
    tail.append({prompts.end_of_retrieve(), std::vector<uint8_t>(prompts.end_of_retrieve().size(), 0)});
    answer_.hops.back().generated += model_.tokenizer().decode(prompts.end_of_retrieve(), /*skip_special=*/false);
    tail.append(prompts.final_question(question_));
    tail.append(prompts.answer_prefix());
    if (session_.room() <= static_cast<int>(tail.tokens.size())) {
      answer_.stop_reason = "context";
      return;
    }
    const auto start = Clock::now();
    logits_ = session_.feed(context, tail.tokens);
    answer_.prompt_tokens = static_cast<int>(transcript_.tokens.size() + tail.tokens.size());
    decode(context, stream);
    answer_.answer_ms = ms_since(start);
    const size_t first = answer_.text.find_first_not_of(" \n\t");
    answer_.text = first == std::string::npos ? "" : answer_.text.substr(first);
  }

  void decode(Context& context, const AnswerCallback& stream) {
    Sampler sampler(options_.sampling);
    StreamDecoder decoder(model_.tokenizer());
    answer_.stop_reason = "length";
    const bool greedy = options_.sampling.temperature == 0;
    int32_t token = sampler.pick(logits_);
    while (answer_.answer_tokens < options_.max_answer_tokens) {
      if (model_.prompts().is_stop(token)) {
        answer_.stop_reason = "stop";
        break;
      }
      ++answer_.answer_tokens;
      const std::string piece = decoder.add(token);
      answer_.text += piece;
      if (stream && !piece.empty() && !stream(piece)) {
        answer_.stop_reason = "cancelled";
        break;
      }
      if (session_.room() <= 1) {
        answer_.stop_reason = "context";
        break;
      }
      if (answer_.answer_tokens == options_.max_answer_tokens) break;
      token = greedy ? session_.feed_greedily(context, token) : sampler.pick(session_.feed(context, {&token, 1}));
    }
    const std::string rest = decoder.finish();
    answer_.text += rest;
    if (stream && !rest.empty()) stream(rest);
  }

  // Tokens kept free for End-of-Retrieve, the question once more and a short answer.
  static constexpr int kReserve = 256;

  const Model& model_;
  const Bank& bank_;
  std::string question_;
  const AskOptions& options_;
  int top_k_;
  std::shared_ptr<const Snapshot> snapshot_;  // what this question sees, whatever is edited meanwhile
  std::unique_ptr<RoutedMemory> memory_owner_;
  RoutedMemory& memory_;
  Session session_;
  Prompt transcript_;  // everything after the template head
  std::span<const float> logits_;
  std::set<DocumentId> fetched_;
  int64_t fetched_bytes_ = 0;
  std::optional<HopEnd> limit_hit_;
  Answer answer_;
};

void check_question(const Model& model, std::string_view question) {
  if (question.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    throw Error("the question is empty", "question", "ask something, for instance: msa ask \"Who …?\"");
  }
  const size_t tokens = model.prompts().query(question).tokens.size();
  const int room = model.config().max_positions / 2;
  if (tokens > static_cast<size_t>(room)) {
    throw Error("the question has " + std::to_string(tokens) + " tokens; at most " + std::to_string(room) + " fit",
                "question", "shorten it, or add the text to the memory instead");
  }
}

}  // namespace

const char* describe(HopEnd end) {
  switch (end) {
    case HopEnd::kFetched: return "fetched";
    case HopEnd::kModelEnded: return "the model ended retrieval";
    case HopEnd::kHopLimit: return "hop limit";
    case HopEnd::kDocumentLimit: return "document limit";
    case HopEnd::kByteLimit: return "byte limit";
    case HopEnd::kContextLimit: return "context limit";
    case HopEnd::kNothingToFetch: return "nothing to fetch";
    case HopEnd::kNotRelevant: return "no candidate relevant enough";
  }
  return "?";
}

Generator::Generator(const Model& model, const Bank& bank, const DeviceOptions& device, ShardDriver* ranks)
    : model_(model), bank_(bank), device_(device), ranks_(ranks) {}

Answer Generator::ask(Context& context, std::string_view question, const AskOptions& options,
                      const AnswerCallback& stream) {
  check_question(model_, question);
  check_reading(model_, options);
  return Interleave(context, model_, bank_, question, options, {device_, ranks_}).run(context, stream);
}

Answer Generator::read(Context& context, std::string_view question, std::span<const GivenDocument> documents,
                       const AskOptions& options) {
  check_question(model_, question);
  return Interleave(context, model_, bank_, question, options, {device_, ranks_}).read(context, documents);
}

Routing Generator::route(Context& context, std::string_view question, int count, const DocumentScope& scope) {
  check_question(model_, question);
  AskOptions options;
  options.scope = scope;
  return Interleave(context, model_, bank_, question, options, {device_, ranks_}).route_only(context, count);
}

}  // namespace msa
