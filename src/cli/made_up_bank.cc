#include "cli/made_up_bank.h"

#include <algorithm>

#include "core/copy.h"
#include "ops/fill.h"

namespace msa::cli {
namespace {

constexpr int64_t kMostContentBytes = int64_t{1} << 30;  // in host memory; documents of a larger bank share it

Tensor bytes_of(const Tensor& t) { return Tensor(t.data, DType::kI8, {t.bytes()}, t.device); }

}  // namespace

MadeUpPart::MadeUpPart(Context& context, const ModelConfig& config, const MadeUpBank& bank, const SlotRange& range,
                       const DeviceOptions& options)
    : bank_(bank), range_(range), width_(config.kv_size()) {
  BankShape shape;
  shape.routing_layers = config.memory.routing_layers;
  shape.kv_heads = config.n_kv_heads;
  shape.head_dim = config.head_dim;
  layers_ = shape.n_layers();
  if (!DeviceKeys::fits(shape)) throw Error("keys of this width are not scanned on a GPU", "--shape", "use 4b or 135m");
  DeviceKeys::Layout layout;
  layout.n_slots = range.size();
  layout.slot_of_chunk.resize(static_cast<size_t>(range.size() * bank.chunks));
  for (size_t i = 0; i < layout.slot_of_chunk.size(); ++i)
    layout.slot_of_chunk[i] = static_cast<int32_t>(i / static_cast<size_t>(bank.chunks));
  const auto fill = [&](int layer, const Tensor& keys) {
    fill_uniform(context, keys, 1.0f, static_cast<uint32_t>(layer + 1), range.begin * bank.chunks * width_);
  };
  keys_ = std::make_shared<DeviceKeys>(context, shape, layout, fill, options);
  const DeviceRouting::Query query{layers_, bank.top_k, {}};
  routing_ = std::make_unique<DeviceRouting>(keys_, query);
  kept_ = std::clamp<int64_t>(kMostContentBytes / document_bytes(), 1, bank.documents);
  content_ = content_memory_.tensor(context, DType::kBF16, {kept_ * bank.chunks, 2, width_});
  Context host(context.pool.threads());
  fill_uniform(host, content_, 1.0f, 9);
}

MadeUpPart::~MadeUpPart() = default;

std::vector<ShardCandidate> MadeUpPart::chosen() {
  std::vector<ShardCandidate> out;
  for (const BestScore& best : routing_->chosen()) out.push_back({range_.begin + best.index, best.score, 0});
  return out;
}

void MadeUpPart::content(Context& context, std::span<const int64_t> documents, const Tensor& to) const {
  int64_t row = 0;
  for (const int64_t document : documents) {
    const int64_t first = document % kept_ * bank_.chunks;
    copy(context, content_.slice_rows(first, first + bank_.chunks), to.slice_rows(row, row + bank_.chunks));
    row += bank_.chunks;
  }
}

int64_t MadeUpPart::key_bytes() const {
  const KeyPlacement& p = keys_->placement();
  const int64_t bits = keys_->has_bounds() ? p.bits : 16, extra = keys_->has_bounds() ? 16 : 0;
  return range_.size() * bank_.chunks * (int64_t{width_} * bits / 8 + extra) * layers_;
}

MadeUpMemory::Layer& MadeUpMemory::at(int layer) {
  const std::vector<int>& layers = config_.memory.routing_layers;
  return layers_[static_cast<size_t>(std::lower_bound(layers.begin(), layers.end(), layer) - layers.begin())];
}

void MadeUpMemory::route(Context& context, int layer, const Tensor& q) {
  context_ = &context;
  Layer& one = at(layer);
  const auto index = static_cast<int32_t>(&one - layers_.data());
  one.is_routed = true;
  one.is_chosen = false;
  const HeadFold how{Similarity::kCosine, config_.n_heads, config_.n_kv_heads};
  const Tensor folded = fold_query(context, q, how, one.folded_memory);
  if (driver_ != nullptr) {
    Message message = driver_->request(ShardCommand::kRoute);
    HeadWriter(message.head).put(RouteRequest{index, static_cast<int32_t>(q.rows())});
    message.body = bytes_of(on_cuda(driver_->body_device()) ? folded : to_host(context, folded, host_q_));
    one.ticket = driver_->ask(driver_->others(), message);
  }
  own_.route(context, index, folded);
}

const std::vector<ShardCandidate>& MadeUpMemory::choose(int layer) {
  Layer& one = at(layer);
  if (one.is_chosen) return one.selection;
  one.selection = own_.chosen();
  if (driver_ != nullptr) {
    Message reply;
    HeadReader in;
    for (const int rank : driver_->others()) {
      MSA_CHECK(driver_->reply(rank, one.ticket, reply, in));
      const std::vector<ShardCandidate> theirs = in.get_all<ShardCandidate>();
      one.selection.insert(one.selection.end(), theirs.begin(), theirs.end());
    }
  }
  const auto better = [](const ShardCandidate& a, const ShardCandidate& b) {
    return a.score != b.score ? a.score > b.score : a.slot < b.slot;
  };
  std::sort(one.selection.begin(), one.selection.end(), better);
  one.selection.resize(std::min(one.selection.size(), static_cast<size_t>(bank_.top_k)));
  one.is_chosen = true;
  return one.selection;
}

std::span<const KeyValueSpan> MadeUpMemory::gather(int layer) {
  Layer& one = at(layer);
  if (!one.is_routed) return one.spans;
  choose(layer);
  fetch(layer, one);
  one.is_routed = false;
  return one.spans;
}

/// Asks the others for theirs first, so that they read it while this rank reads its own.
void MadeUpMemory::fetch(int layer, Layer& one) {
  const auto index = static_cast<int32_t>(&at(layer) - layers_.data());
  const int ranks = driver_ == nullptr ? 1 : driver_->size();
  std::vector<std::vector<int64_t>> documents(static_cast<size_t>(ranks));
  for (const ShardCandidate& c : one.selection) {
    for (int rank = 0; rank < ranks; ++rank) {
      const SlotRange range = bank_.part(rank, ranks);
      if (c.slot >= range.begin && c.slot < range.end) documents[static_cast<size_t>(rank)].push_back(c.slot);
    }
  }
  std::vector<uint64_t> tickets(static_cast<size_t>(ranks), 0);
  for (int rank = 1; rank < ranks; ++rank) {
    if (documents[static_cast<size_t>(rank)].empty()) continue;
    Message message = driver_->request(ShardCommand::kContent);
    HeadWriter out(message.head);
    out.put(index);
    out.put_all(std::span<const int64_t>(documents[static_cast<size_t>(rank)]));
    tickets[static_cast<size_t>(rank)] = driver_->ask({rank}, message);
  }
  one.spans.clear();
  one.deliveries.resize(static_cast<size_t>(ranks));
  const auto rows = [&](int rank) {
    return static_cast<int64_t>(documents[static_cast<size_t>(rank)].size()) * bank_.chunks;
  };
  if (rows(0) > 0) {
    const Tensor content = one.own_memory.tensor(DType::kBF16, {rows(0), 2, config_.kv_size()}, context_->device);
    own_.content(*context_, documents[0], content);
    add_span(one, content);
  }
  for (int rank = 1; rank < ranks; ++rank) {
    if (rows(rank) == 0) continue;
    Delivery& delivery = one.deliveries[static_cast<size_t>(rank)];
    HeadReader in;
    MSA_CHECK(driver_->reply(rank, tickets[static_cast<size_t>(rank)], delivery.message, in));
    const Tensor& body = delivery.message.body;
    MSA_CHECK(body.bytes() == rows(rank) * 4 * config_.kv_size());
    const Tensor content(body.data, DType::kBF16, {rows(rank), 2, config_.kv_size()}, body.device);
    add_span(one, to_device(*context_, content, delivery.on_device));
  }
}

void MadeUpMemory::add_span(Layer& one, const Tensor& content) const {
  const auto half = [&](int64_t which) {
    Tensor t(content.as<bf16>() + which * config_.kv_size(), DType::kBF16,
             {content.rows(), config_.n_kv_heads, config_.head_dim}, content.device);
    t.row_bytes = content.row_bytes;
    return t;
  };
  one.spans.push_back({half(0), half(1)});
}

void serve_made_up_part(Context& context, MadeUpPart& part, Exchange& exchange) {
  constexpr auto kPatience = std::chrono::minutes(30);
  Message request, reply;
  Buffer q_memory;
  while (true) {
    const std::string problem = exchange.receive(0, Exchange::Clock::now() + kPatience, request);
    if (!problem.empty()) throw Error("rank 0: " + problem, "waiting for a request", "look at what rank 0 reports");
    HeadReader in(request.head);
    const auto head = in.get<RequestHead>();
    if (head.command == ShardCommand::kStop) return;
    reply.head.clear();
    reply.body = {};
    HeadWriter out(reply.head);
    out.put(ReplyHead{head.ticket, 0});
    if (head.command == ShardCommand::kRoute) {
      const auto what = in.get<RouteRequest>();
      const Tensor& body = request.body;
      const Tensor q(body.data, DType::kF32, {what.n_queries, body.bytes() / 4 / what.n_queries}, body.device);
      part.route(context, what.routing_index, to_device(context, q, q_memory));
      out.put_all(std::span<const ShardCandidate>(part.chosen()));
    } else {
      MSA_CHECK(head.command == ShardCommand::kContent);
      in.get<int32_t>();  // the layer: every layer has the same content
      const std::vector<int64_t> documents = in.get_all<int64_t>();
      const auto bytes = static_cast<int64_t>(documents.size()) * part.document_bytes();
      reply.body = reply.memory.tensor(DType::kI8, {bytes}, exchange.body_device());
      part.content(context, documents, part.as_content(reply.body));
    }
    exchange.send({0}, reply);
  }
}

}  // namespace msa::cli
