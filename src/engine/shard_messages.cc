#include "engine/shard_messages.h"

namespace msa {

void HeadReader::fail() {
  throw Error("a message of another rank ends too early", "messages between ranks",
              "run the same program on every rank");
}

std::span<const std::byte> HeadReader::take(size_t bytes) {
  if (bytes > rest_.size()) fail();
  const std::span<const std::byte> taken = rest_.first(bytes);
  rest_ = rest_.subspan(bytes);
  return taken;
}

void put_plan(HeadWriter& out, const ShardPlan& plan) {
  out.put_all(std::span<const int>(plan.shape.routing_layers));
  out.put(plan.shape.kv_heads);
  out.put(plan.shape.head_dim);
  out.put(plan.shape.chunk_tokens);
  out.put(plan.shape.dtype);
  out.put_text(plan.shape.fingerprint);
  out.put(plan.commit);
  out.put(static_cast<uint64_t>(plan.pieces.size()));
  for (const ShardPlan::Piece& piece : plan.pieces) {
    out.put(piece.segment);
    out.put_text(piece.file);
    out.put(piece.begin);
    out.put(piece.end);
    out.put_all(std::span<const uint8_t>(piece.live));
  }
}

ShardPlan get_plan(HeadReader& in) {
  ShardPlan plan;
  plan.shape.routing_layers = in.get_all<int>();
  plan.shape.kv_heads = in.get<int>();
  plan.shape.head_dim = in.get<int>();
  plan.shape.chunk_tokens = in.get<int>();
  plan.shape.dtype = in.get<DType>();
  plan.shape.fingerprint = in.get_text();
  plan.commit = in.get<int64_t>();
  const auto n = in.get<uint64_t>();
  for (uint64_t i = 0; i < n; ++i) {
    ShardPlan::Piece piece;
    piece.segment = in.get<SegmentRow>();
    piece.file = in.get_text();
    piece.begin = in.get<int64_t>();
    piece.end = in.get<int64_t>();
    piece.live = in.get_all<uint8_t>();
    plan.pieces.push_back(std::move(piece));
  }
  return plan;
}

}  // namespace msa
