#include "engine/session.h"

#include <algorithm>

namespace msa {
namespace {
constexpr int kInitialCapacity = 512;
}

Session::Session(const Transformer& transformer, const KvCache& head, BankMemory* memory, int first_position)
    : transformer_(transformer),
      head_(head),
      memory_(memory),
      first_position_(first_position),
      cache_(transformer.config(), head.length() + kInitialCapacity, transformer.activation_dtype()) {
  cache_.assign(head_);
}

int Session::room() const {
  const int used = cache_.length() - head_.length();
  return transformer_.config().max_positions - first_position_ - used;
}

void Session::restart() { cache_.truncate(head_.length()); }

void Session::grow(int tokens) {
  const int needed = cache_.length() + tokens;
  if (needed <= cache_.capacity()) return;
  KvCache larger(transformer_.config(), std::max(needed, 2 * cache_.capacity()), transformer_.activation_dtype());
  larger.assign(cache_);
  cache_ = std::move(larger);
}

Tensor Session::run(Context& context, std::span<const int32_t> tokens, std::span<const uint8_t> routed) {
  grow(static_cast<int>(tokens.size()));
  const int first = first_position_ + cache_.length() - head_.length();
  std::vector<int32_t> positions(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) positions[i] = first + static_cast<int32_t>(i);
  QueryStage stage(transformer_.config(), cache_, memory_, routed);
  return transformer_.forward(context, workspace_, tokens, positions, stage);
}

std::span<const float> Session::feed(Context& context, std::span<const int32_t> tokens,
                                     std::span<const uint8_t> routed) {
  const Tensor x = run(context, tokens, routed);
  const Tensor out = logits_.tensor(DType::kF32, {1, transformer_.config().vocab});
  transformer_.logits(context, workspace_, x.slice_rows(x.rows() - 1, x.rows()), out);
  return {out.as<float>(), static_cast<size_t>(out.elements())};
}

Tensor Session::feed_all(Context& context, std::span<const int32_t> tokens, std::span<const uint8_t> routed) {
  const Tensor x = run(context, tokens, routed);
  const Tensor out = logits_.tensor(DType::kF32, {x.rows(), transformer_.config().vocab});
  transformer_.logits(context, workspace_, x, out);
  return out;
}

}  // namespace msa
