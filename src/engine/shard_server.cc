#include "engine/shard_server.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "bank/segment_file.h"
#include "bank/segment_format.h"
#include "core/copy.h"
#include "core/log.h"

namespace msa {
namespace {

/// Candidates take their content along where all ranks' together have at most so many bytes: then it comes in the same
/// message of MPI, and moving it costs less than the second round trip that it saves (1 to 2 us within a host, in which
/// 1 to 3 GB/s move about as much; docs/parallel.md).
constexpr int64_t kContentWithCandidates = 4 << 10;

}  // namespace

/// A query's view of this rank's part. The documents chosen are candidates: their content is read when it is asked for.
class ShardServer::Part : public BankMemory {
 public:
  Part(std::shared_ptr<const ModelConfig> config, const SlotRange& range, std::shared_ptr<const Snapshot> snapshot,
       MemoryQuery query, std::shared_ptr<const DeviceKeys> keys)
      : BankMemory(*config, snapshot, std::move(query), std::move(keys)),
        config_(std::move(config)),
        range_(range),
        slots_(snapshot),
        snapshot_(std::move(snapshot)) {}

  int layer(int routing_index) const { return config_->memory.routing_layers.at(static_cast<size_t>(routing_index)); }
  const std::vector<ScoredDocument>& candidates() const { return candidates_; }
  ShardCandidate candidate(const ScoredDocument& d) const { return {range_.begin + slots_.slot_of(d), d.score, 0}; }
  ScoredDocument document(int64_t slot) const { return slots_.slot(slot - range_.begin); }
  Tensor content(int routing_index, const ScoredDocument& d) const {
    return snapshot_->segments[static_cast<size_t>(d.segment)]->content(routing_index, d.index);
  }
  int64_t content_bytes(const ScoredDocument& d) const {
    const auto starts = snapshot_->segments[static_cast<size_t>(d.segment)]->chunk_starts();
    const auto at = static_cast<size_t>(d.index);
    return (starts[at + 1] - starts[at]) * 2 * snapshot_->shape.row_bytes();
  }

 protected:
  void choose(int /*routing_index*/, std::vector<ScoredDocument>& selection) override {
    candidates_ = std::exchange(selection, {});
  }

 private:
  std::shared_ptr<const ModelConfig> config_;
  SlotRange range_;
  Router slots_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::vector<ScoredDocument> candidates_;  // of the layer routed last
};

ShardServer::ShardServer(Context& context, Exchange& exchange, const DeviceOptions& device, const Model* model,
                         std::filesystem::path bank)
    : context_(context), exchange_(exchange), bank_(std::move(bank)), opener_(bank_), model_(model), device_(device) {
  MSA_CHECK(exchange.rank() != 0);
}

ShardServer::~ShardServer() = default;

void ShardServer::serve(std::chrono::milliseconds patience) {
  Message request;
  do {
    const std::string problem = exchange_.receive(0, Exchange::Clock::now() + patience, request);
    if (!problem.empty()) {
      throw Error("rank 0: " + problem, "rank " + std::to_string(exchange_.rank()) + " waiting for a request",
                  "look at what rank 0 reports");
    }
  } while (handle(request));
}

bool ShardServer::handle(const Message& request) {
  HeadReader in(request.head);
  const auto head = in.get<RequestHead>();
  if (head.command == ShardCommand::kStop) return false;
  if (head.command == ShardCommand::kEnd) {
    parts_.erase(head.query);
    return true;
  }
  Message reply;
  HeadWriter(reply.head).put(ReplyHead{head.ticket, 0});
  try {
    answer(head, in, request, reply);
  } catch (const Error& error) {
    spdlog::error("rank {}: {}", exchange_.rank(), error.what());
    reply = {};
    HeadWriter out(reply.head);
    out.put(ReplyHead{head.ticket, 1});
    out.put_text(error.what());
  }
  exchange_.send({0}, reply);
  return true;
}

void ShardServer::answer(const RequestHead& head, HeadReader& in, const Message& request, Message& reply) {
  switch (head.command) {
    case ShardCommand::kHold: return hold(in);
    case ShardCommand::kBegin: return begin(head.query, in);
    case ShardCommand::kRoute: return route(head.query, in, request, reply);
    case ShardCommand::kContent: return content(head.query, in, reply);
    case ShardCommand::kRouted: return routed(head.query, in, reply);
    case ShardCommand::kScores: return scores(head.query, in, reply);
    case ShardCommand::kLate: return late_scores(head.query, in, reply);
    case ShardCommand::kEncode: return encode(head, in, reply);
    case ShardCommand::kPing: return ping(in, reply);
    default: break;
  }
  throw Error("this rank does not know the request " + std::to_string(static_cast<uint32_t>(head.command)),
              "messages between ranks", "run the same program on every rank");
}

ShardServer::Part& ShardServer::part(uint32_t query) {
  const auto found = parts_.find(query);
  MSA_CHECK(found != parts_.end());
  return *found->second;
}

void ShardServer::hold(HeadReader& in) {
  range_ = in.get<SlotRange>();
  const ShardPlan plan = get_plan(in);
  config_.n_kv_heads = plan.shape.kv_heads;
  config_.head_dim = plan.shape.head_dim;
  config_.memory.routing_layers = plan.shape.routing_layers;
  held_ = opener_.open(plan);
  device_.keys(context_, held_);  // copied to the GPU now, not within a question
  spdlog::debug("rank {} holds documents {} to {}, {} chunks in {} segments", exchange_.rank(), range_.begin,
                range_.end, held_->n_chunks(), held_->segments.size());
}

void ShardServer::begin(uint32_t query, HeadReader& in) {
  MSA_CHECK(held_ != nullptr);
  MemoryQuery what;
  what.top_k = in.get<int32_t>();
  what.late = in.get<uint8_t>() != 0;
  what.allowed = in.get_all<uint8_t>();
  parts_[query] = std::make_unique<Part>(std::make_shared<const ModelConfig>(config_), range_, held_, std::move(what),
                                         device_.keys(context_, held_));
}

void ShardServer::route(uint32_t query, HeadReader& in, const Message& request, Message& reply) {
  Part& one = part(query);
  const auto what = in.get<RouteRequest>();
  const int layer = one.layer(what.routing_index);
  const Tensor q(request.body.data, DType::kF32, {what.n_queries, config_.kv_size()}, request.body.device);
  MSA_CHECK(q.bytes() == request.body.bytes());
  Buffer here;
  one.route_folded(context_, layer, to_device(context_, q, here));
  one.gather(layer);
  std::vector<ShardCandidate> candidates;
  int64_t bytes = 0;
  for (const ScoredDocument& d : one.candidates()) {
    candidates.push_back(one.candidate(d));
    bytes += one.content_bytes(d);
  }
  HeadWriter(reply.head).put_all(std::span<const ShardCandidate>(candidates));
  if (bytes * (exchange_.size() - 1) > kContentWithCandidates) return;
  std::vector<Tensor> contents;
  for (const ScoredDocument& d : one.candidates()) contents.push_back(one.content(what.routing_index, d));
  put_content(contents, reply);
}

void ShardServer::content(uint32_t query, HeadReader& in, Message& reply) {
  Part& one = part(query);
  const auto routing_index = in.get<int32_t>();
  std::vector<Tensor> contents;
  for (const int64_t slot : in.get_all<int64_t>()) contents.push_back(one.content(routing_index, one.document(slot)));
  put_content(contents, reply);
}

void ShardServer::put_content(std::span<const Tensor> contents, Message& reply) {
  int64_t bytes = 0;
  for (const Tensor& content : contents) bytes += content.bytes();
  if (bytes == 0) return;
  reply.body = reply.memory.tensor(DType::kI8, {bytes}, exchange_.body_device());
  int64_t at = 0;
  for (const Tensor& content : contents) {
    const int64_t n = content.bytes();
    copy(context_, Tensor::of_const(content.data, DType::kI8, {n}), reply.body.slice_rows(at, at + n));
    at += n;
  }
}

void ShardServer::routed(uint32_t query, HeadReader& in, Message& reply) {
  Part& one = part(query);
  std::vector<ShardCandidate> candidates;
  std::vector<float> layers;
  for (const ScoredDocument& d : one.BankMemory::routed(in.get<int32_t>())) {
    candidates.push_back(one.candidate(d));
    const std::vector<float> scores = one.layer_scores(d);
    layers.insert(layers.end(), scores.begin(), scores.end());
  }
  HeadWriter out(reply.head);
  out.put_all(std::span<const ShardCandidate>(candidates));
  out.put_all(std::span<const float>(layers));
}

void ShardServer::scores(uint32_t query, HeadReader& in, Message& reply) {
  HeadWriter(reply.head).put_all(part(query).BankMemory::scores(in.get<int32_t>()));
}

void ShardServer::ping(HeadReader& in, Message& reply) {
  const auto bytes = in.get<int64_t>();
  if (bytes == 0) return;
  reply.body = reply.memory.tensor(DType::kI8, {bytes}, exchange_.body_device());
  if (!on_cuda(reply.body)) std::memset(reply.body.data, 0, static_cast<size_t>(bytes));
}

/// Replies after every pack, so that rank 0 need not wait long for a sign of life.
void ShardServer::encode(const RequestHead& head, HeadReader& in, Message& reply) {
  const std::string folder = in.get_text();
  const std::filesystem::path bank = bank_.empty() ? std::filesystem::path(folder) : bank_;
  const std::string fingerprint = in.get_text();
  const auto dtype = in.get<DType>();
  const auto number = in.get<int64_t>();
  const auto ids = in.get_all<DocumentId>();
  std::vector<DocumentTokens> documents;
  for (size_t i = 0; i < ids.size(); ++i) documents.push_back(in.get_all<int32_t>());
  if (model_ == nullptr || model_->fingerprint() != fingerprint) {
    throw Error("this rank has " + (model_ == nullptr ? "no model" : "model " + model_->fingerprint()) +
                    ", rank 0 has model " + fingerprint,
                bank.string(), "run every rank with the same model");
  }
  if (encoder_ == nullptr) encoder_ = std::make_unique<Encoder>(model_->transformer(), dtype);
  const auto encoded = encoder_->encode(context_, documents, [&](int64_t tokens) {
    Message progress;
    HeadWriter out(progress.head);
    out.put(ReplyHead{head.ticket, 0});
    out.put(tokens);
    exchange_.send({0}, progress);
  });
  const BankShape shape = bank_shape(model_->transformer(), dtype);
  const auto segment = write_segment_file(bank, shape, number, ids, rows_of(shape, encoded));
  std::vector<DocumentSize> sizes;
  for (const EncodedDocument& d : encoded) sizes.push_back({d.n_tokens, d.n_chunks});
  HeadWriter out(reply.head);
  out.put(int64_t{0});
  out.put(row_of(*segment));
  out.put_all(std::span<const DocumentSize>(sizes));
}

void ShardServer::late_scores(uint32_t query, HeadReader& in, Message& reply) {
  Part& one = part(query);
  std::vector<ScoredDocument> documents;
  for (const int64_t slot : in.get_all<int64_t>()) documents.push_back(one.document(slot));
  const std::vector<float> late = one.BankMemory::late_scores(documents);
  HeadWriter(reply.head).put_all(std::span<const float>(late));
}

}  // namespace msa
