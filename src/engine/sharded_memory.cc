#include "engine/sharded_memory.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "core/copy.h"

namespace msa {
namespace {

constexpr size_t kMostSpans = 60;  // of one attention on a GPU, with some to spare

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::vector<uint8_t> slice(const std::vector<uint8_t>& flags, const SlotRange& range) {
  if (flags.empty()) return {};
  return {flags.begin() + range.begin, flags.begin() + range.end};
}

bool better(const ScoredDocument& a, const ScoredDocument& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

}  // namespace

/// Rank 0's part, whose choice of documents is the beginning of the common one.
class ShardedMemory::Own : public BankMemory {
 public:
  Own(ShardedMemory& all, MemoryQuery query, Context& context, DeviceBank& device)
      : BankMemory(all.config_, all.holding_->own, std::move(query), device.keys(context, all.holding_->own),
                   device.content(context)),
        all_(all) {}

 protected:
  void choose(int routing_index, std::vector<ScoredDocument>& selection) override {
    all_.merge(routing_index, selection);
  }

 private:
  ShardedMemory& all_;
};

ShardedMemory::ShardedMemory(Context& context, const ModelConfig& config, std::shared_ptr<const Snapshot> snapshot,
                             const MemoryQuery& query, DeviceBank& device, ShardDriver& driver)
    : context_(context),
      config_(config),
      driver_(driver),
      snapshot_(snapshot),
      holding_(driver.hold(snapshot)),
      slots_(std::move(snapshot)),
      own_slots_(holding_->own),
      top_k_(query.top_k),
      query_(driver.new_query()),
      layers_(config.memory.routing_layers.size()),
      scores_(config.memory.routing_layers.size()) {
  MemoryQuery own = query;
  own.allowed = slice(query.allowed, holding_->ranges[0]);
  own_ = std::make_unique<Own>(*this, std::move(own), context, device);
  std::vector<ShardDriver::Asked> asked;
  for (const int rank : driver_.others()) {
    Message message = driver_.request(ShardCommand::kBegin, query_);
    HeadWriter out(message.head);
    out.put(static_cast<int32_t>(top_k_));
    out.put(static_cast<uint8_t>(query.late ? 1 : 0));
    const std::vector<uint8_t> allowed = slice(query.allowed, holding_->ranges[static_cast<size_t>(rank)]);
    out.put_all(std::span<const uint8_t>(allowed));
    asked.push_back({rank, driver_.ask({rank}, message)});
  }
  driver_.for_each_reply(asked, [&](int rank, HeadReader&) { ranks_.push_back(rank); });
}

ShardedMemory::~ShardedMemory() { driver_.ask(driver_.others(), driver_.request(ShardCommand::kEnd, query_)); }

size_t ShardedMemory::index_of(int layer) const {
  const auto& layers = config_.memory.routing_layers;
  const auto found = std::lower_bound(layers.begin(), layers.end(), layer);
  MSA_CHECK(found != layers.end() && *found == layer);
  return static_cast<size_t>(found - layers.begin());
}

bool ShardedMemory::is_own(int64_t slot) const {
  return slot >= holding_->ranges[0].begin && slot < holding_->ranges[0].end;
}

std::vector<int> ShardedMemory::asked_now() const {
  std::vector<int> ranks = ranks_;
  std::erase_if(ranks, [&](int rank) { return holding_->lost.contains(rank); });
  return ranks;
}

ScoredDocument ShardedMemory::document_of(int64_t slot, float score) const {
  ScoredDocument document = slots_.slot(slot);
  document.score = score;
  return document;
}

void ShardedMemory::route(Context& context, int layer, const Tensor& q) {
  MSA_CHECK(&context == &context_);
  const auto start = Clock::now();
  const size_t i = index_of(layer);
  Layer& one = layers_[i];
  receive_content(one);  // of a selection that nobody gathered
  one.is_assembled = false;
  layer_scores_.clear();
  scores_[i].clear();
  Message message = driver_.request(ShardCommand::kRoute, query_);
  HeadWriter(message.head).put(RouteRequest{static_cast<int32_t>(i), static_cast<int32_t>(q.rows())});
  const Tensor folded = fold_query(context, q, head_fold(config_, i), folded_q_);
  const Tensor body = on_cuda(driver_.body_device()) ? folded : to_host(context, folded, host_q_);
  message.body = Tensor(body.data, DType::kI8, {body.bytes()}, body.device);
  one.asked = asked_now();
  one.ticket = driver_.ask(one.asked, message);
  own_->route_folded(context, layer, folded);
  route_ms_ += ms_since(start);
}

void ShardedMemory::merge(int routing_index, std::vector<ScoredDocument>& own) {
  Layer& layer = layers_[static_cast<size_t>(routing_index)];
  layer.deliveries.clear();
  layer.selection.clear();
  for (const ScoredDocument& d : own) {
    const int64_t slot = holding_->ranges[0].begin + static_cast<int64_t>(own_->slot_of(d));
    layer.selection.push_back(document_of(slot, d.score));
  }
  std::vector<Delivery> with_candidates;
  for (const int rank : layer.asked) {
    Delivery here;
    HeadReader in;
    if (!driver_.reply(rank, layer.ticket, here.message, in)) continue;
    here.rank = rank;
    for (const ShardCandidate& c : in.get_all<ShardCandidate>()) {
      here.slots.push_back(c.slot);
      layer.selection.push_back(document_of(c.slot, c.score));
    }
    if (!here.message.body.empty()) with_candidates.push_back(std::move(here));
  }
  const size_t k = std::min(layer.selection.size(), static_cast<size_t>(std::max(top_k_, 0)));
  std::partial_sort(layer.selection.begin(), layer.selection.begin() + static_cast<std::ptrdiff_t>(k),
                    layer.selection.end(), better);
  layer.selection.resize(k);
  std::erase_if(own, [&](const ScoredDocument& d) {
    return std::none_of(layer.selection.begin(), layer.selection.end(),
                        [&](const ScoredDocument& s) { return s.id == d.id; });
  });
  layer.deliveries = std::move(with_candidates);
  ask_for_content(routing_index);
}

/// Of the selected documents that another rank holds and whose content did not come with the candidates.
void ShardedMemory::ask_for_content(int routing_index) {
  Layer& layer = layers_[static_cast<size_t>(routing_index)];
  const auto is_here = [&](int rank) {
    return std::any_of(layer.deliveries.begin(), layer.deliveries.end(),
                       [&](const Delivery& d) { return d.rank == rank; });
  };
  std::vector<Delivery> asked;
  for (const int rank : layer.asked) {
    if (is_here(rank) || holding_->lost.contains(rank)) continue;
    const SlotRange& range = holding_->ranges[static_cast<size_t>(rank)];
    Delivery delivery;
    delivery.rank = rank;
    for (const ScoredDocument& d : layer.selection) {
      const auto slot = static_cast<int64_t>(slot_of(d));
      if (slot >= range.begin && slot < range.end) delivery.slots.push_back(slot);
    }
    if (delivery.slots.empty()) continue;
    Message message = driver_.request(ShardCommand::kContent, query_);
    HeadWriter out(message.head);
    out.put(static_cast<int32_t>(routing_index));
    out.put_all(std::span<const int64_t>(delivery.slots));
    delivery.ticket = driver_.ask({rank}, message);
    asked.push_back(std::move(delivery));
  }
  for (Delivery& delivery : asked) layer.deliveries.push_back(std::move(delivery));
}

void ShardedMemory::receive_content(Layer& layer) {
  for (Delivery& delivery : layer.deliveries) {
    if (delivery.ticket == 0) continue;
    HeadReader in;
    if (!driver_.reply(delivery.rank, std::exchange(delivery.ticket, 0), delivery.message, in)) delivery.slots.clear();
  }
}

std::span<const KeyValueSpan> ShardedMemory::gather(int layer) {
  const size_t i = index_of(layer);
  Layer& one = layers_[i];
  if (one.is_assembled) return one.spans;
  const auto start = Clock::now();
  own_->gather(layer);
  receive_content(one);
  assemble(i);
  one.is_assembled = true;
  route_ms_ += ms_since(start);
  return one.spans;
}

int64_t ShardedMemory::chunks_of(const ScoredDocument& document) const {
  const auto starts = snapshot_->segments[static_cast<size_t>(document.segment)]->chunk_starts();
  return starts[static_cast<size_t>(document.index) + 1] - starts[static_cast<size_t>(document.index)];
}

/// Every selected document's content [chunks, 2 (K|V), G·d] that came from another rank, where the model runs.
std::unordered_map<int64_t, Tensor> ShardedMemory::delivered(Layer& layer) {
  std::unordered_map<int64_t, Tensor> content;  // by slot
  for (Delivery& delivery : layer.deliveries) {
    if (delivery.slots.empty()) continue;
    int64_t chunks = 0;
    for (const int64_t slot : delivery.slots) chunks += chunks_of(slots_.slot(slot));
    Tensor all(delivery.message.body.data, snapshot_->shape.dtype, {chunks, 2, config_.kv_size()},
               delivery.message.body.device);
    MSA_CHECK(all.bytes() == delivery.message.body.bytes());
    all = to_device(context_, all, delivery.on_device);
    int64_t row = 0;
    for (const int64_t slot : delivery.slots) {
      const int64_t n = chunks_of(slots_.slot(slot));
      content.emplace(slot, all.slice_rows(row, row + n));
      row += n;
    }
  }
  return content;
}

/// The spans in the order of the selection, one a document, as one process has them: so the sums of the attention are
/// the same to the last bit.
void ShardedMemory::assemble(size_t i) {
  Layer& layer = layers_[i];
  layer.spans.clear();
  const std::unordered_map<int64_t, Tensor> others = delivered(layer);
  const std::span<const KeyValueSpan> own = own_->gather(config_.memory.routing_layers[i]);
  size_t n_own = 0;  // spans used; or, where the own content is one span, rows of it
  std::vector<ScoredDocument> there;
  const size_t own_documents = own_->selection(static_cast<int>(i)).size();
  const bool one_by_one = own.size() == own_documents;
  for (const ScoredDocument& d : layer.selection) {
    const auto slot = static_cast<int64_t>(slot_of(d));
    if (is_own(slot)) {
      if (one_by_one) {
        layer.spans.push_back(own[n_own++]);
      } else {
        const auto first = static_cast<int64_t>(n_own);
        const int64_t chunks = chunks_of(d);
        layer.spans.push_back({own[0].k.slice_rows(first, first + chunks), own[0].v.slice_rows(first, first + chunks)});
        n_own += static_cast<size_t>(chunks);
      }
    } else if (const auto found = others.find(slot); found != others.end()) {
      layer.spans.push_back(content_span(found->second, config_));
    } else {
      continue;  // its rank is lost
    }
    there.push_back(d);
  }
  layer.selection = std::move(there);
  if (on_cuda(context_.device) && layer.spans.size() > kMostSpans) join(layer);
}

/// More spans than one attention takes: one dense copy of them all.
void ShardedMemory::join(Layer& layer) {
  int64_t chunks = 0, row = 0;
  for (const KeyValueSpan& span : layer.spans) chunks += span.k.rows();
  const Tensor all = layer.dense.tensor(snapshot_->shape.dtype, {chunks, 2, config_.kv_size()}, context_.device);
  const KeyValueSpan joined = content_span(all, config_);
  for (const KeyValueSpan& span : layer.spans) {
    const int64_t n = span.k.rows();
    copy(context_, span.k, joined.k.slice_rows(row, row + n));
    copy(context_, span.v, joined.v.slice_rows(row, row + n));
    row += n;
  }
  layer.spans = {joined};
}

std::vector<ScoredDocument> ShardedMemory::routed(int count) const {
  Message message = driver_.request(ShardCommand::kRouted, query_);
  HeadWriter(message.head).put(static_cast<int32_t>(count));
  const auto asked = driver_.ask_each(asked_now(), message);
  std::vector<ScoredDocument> all;
  layer_scores_.clear();
  for (const ScoredDocument& d : own_->routed(count)) {
    const int64_t slot = holding_->ranges[0].begin + static_cast<int64_t>(own_->slot_of(d));
    all.push_back(document_of(slot, d.score));
  }
  driver_.for_each_reply(asked, [&](int, HeadReader& in) {
    const auto candidates = in.get_all<ShardCandidate>();
    const auto layers = in.get_all<float>();  // [candidates, routing layers]
    const size_t n = layers_.size();
    MSA_CHECK(layers.size() == candidates.size() * n);
    for (size_t c = 0; c < candidates.size(); ++c) {
      all.push_back(document_of(candidates[c].slot, candidates[c].score));
      const auto first = layers.begin() + static_cast<std::ptrdiff_t>(c * n);
      layer_scores_[candidates[c].slot].assign(first, first + static_cast<std::ptrdiff_t>(n));
    }
  });
  std::sort(all.begin(), all.end(), better);
  if (all.size() > static_cast<size_t>(std::max(count, 0))) all.resize(static_cast<size_t>(std::max(count, 0)));
  return all;
}

const std::vector<ScoredDocument>& ShardedMemory::selection(int routing_index) const {
  return layers_[static_cast<size_t>(routing_index)].selection;
}

std::span<const float> ShardedMemory::scores(int routing_index) const {
  std::vector<float>& out = scores_[static_cast<size_t>(routing_index)];
  if (!out.empty() || layers_[static_cast<size_t>(routing_index)].ticket == 0) return out;
  Message message = driver_.request(ShardCommand::kScores, query_);
  HeadWriter(message.head).put(static_cast<int32_t>(routing_index));
  const auto asked = driver_.ask_each(asked_now(), message);
  out.assign(static_cast<size_t>(slots_.n_slots()), -std::numeric_limits<float>::infinity());
  const std::span<const float> own = own_->scores(routing_index);
  std::copy(own.begin(), own.end(), out.begin() + holding_->ranges[0].begin);
  driver_.for_each_reply(asked, [&](int rank, HeadReader& in) {
    const auto part = in.get_all<float>();
    const SlotRange& range = holding_->ranges[static_cast<size_t>(rank)];
    MSA_CHECK(static_cast<int64_t>(part.size()) == range.size());
    std::copy(part.begin(), part.end(), out.begin() + range.begin);
  });
  return out;
}

std::vector<float> ShardedMemory::late_scores(std::span<const ScoredDocument> documents) const {
  if (layers_.empty() || layers_.front().ticket == 0) return {};
  std::vector<float> out(documents.size(), 0.0f);
  const auto places_in = [&](const SlotRange& range) {  // in `documents`
    std::vector<size_t> places;
    for (size_t d = 0; d < documents.size(); ++d) {
      const auto slot = static_cast<int64_t>(slot_of(documents[d]));
      if (slot >= range.begin && slot < range.end) places.push_back(d);
    }
    return places;
  };
  const auto place = [&](const std::vector<float>& late, const SlotRange& range) {
    const std::vector<size_t> places = places_in(range);
    MSA_CHECK(late.size() == places.size());
    for (size_t i = 0; i < late.size(); ++i) out[places[i]] = late[i];
  };
  std::vector<ShardDriver::Asked> asked;
  for (const int rank : asked_now()) {
    std::vector<int64_t> slots;
    for (const size_t d : places_in(holding_->ranges[static_cast<size_t>(rank)])) {
      slots.push_back(static_cast<int64_t>(slot_of(documents[d])));
    }
    if (slots.empty()) continue;
    Message message = driver_.request(ShardCommand::kLate, query_);
    HeadWriter(message.head).put_all(std::span<const int64_t>(slots));
    asked.push_back({rank, driver_.ask({rank}, message)});
  }
  const SlotRange& here = holding_->ranges[0];
  std::vector<ScoredDocument> own;
  for (const size_t d : places_in(here)) {
    own.push_back(own_slots_.slot(static_cast<int64_t>(slot_of(documents[d])) - here.begin));
  }
  place(own_->late_scores(own), here);
  driver_.for_each_reply(asked, [&](int rank, HeadReader& in) {
    place(in.get_all<float>(), holding_->ranges[static_cast<size_t>(rank)]);
  });
  return out;
}

std::vector<float> ShardedMemory::layer_scores(const ScoredDocument& document) const {
  const auto slot = static_cast<int64_t>(slot_of(document));
  if (is_own(slot)) return own_->layer_scores(own_slots_.slot(slot - holding_->ranges[0].begin));
  if (const auto known = layer_scores_.find(slot); known != layer_scores_.end()) return known->second;
  std::vector<float> out;
  for (size_t i = 0; i < layers_.size(); ++i) out.push_back(scores(static_cast<int>(i))[static_cast<size_t>(slot)]);
  return out;
}

DeviceRouting::Statistics ShardedMemory::statistics() const { return own_->statistics(); }

size_t ShardedMemory::slot_of(const ScoredDocument& document) const {
  return static_cast<size_t>(slots_.slot_of(document));
}

}  // namespace msa
