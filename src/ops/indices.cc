#include "ops/indices.h"

#include <algorithm>

#include "core/copy.h"

namespace msa {
namespace {

struct Tile {
  int32_t begin, end, sequence_begin, sequence_end;
};

std::vector<Tile> cut_into_tiles(std::span<const int64_t> starts) {
  std::vector<Tile> tiles;
  for (size_t s = 1; s < starts.size(); ++s) {
    const auto begin = static_cast<int32_t>(starts[s - 1]), end = static_cast<int32_t>(starts[s]);
    for (int32_t t = begin; t < end; t += Sequences::kTileRows) {
      tiles.push_back({t, std::min(end, t + Sequences::kTileRows), begin, end});
    }
  }
  // Blocks start in order: the longest ones first leave no long one for the end.
  std::stable_sort(tiles.begin(), tiles.end(),
                   [](const Tile& a, const Tile& b) { return a.end - a.sequence_begin > b.end - b.sequence_begin; });
  return tiles;
}

}  // namespace

Indices upload(Context& context, std::span<const int32_t> values, Buffer& memory) {
  if (!on_cuda(context.device)) return {values};
  const Tensor host = Tensor::of_const(values.data(), DType::kI32, {static_cast<int64_t>(values.size())});
  return {values, to_device(context, host, memory)};
}

Sequences upload(Context& context, std::span<const int64_t> starts, int chunk_tokens, Buffer& memory) {
  Sequences out(starts);
  if (!on_cuda(context.device)) return out;
  const std::vector<Tile> tiles = cut_into_tiles(starts);
  std::vector<int32_t> all;
  all.reserve(tiles.size() * 6 + starts.size());
  for (const Tile& t : tiles) all.insert(all.end(), {t.begin, t.end, t.sequence_begin, t.sequence_end});
  const auto n_tiles = static_cast<int64_t>(tiles.size());
  for (size_t s = 1; s < starts.size(); ++s) {
    for (int64_t t = starts[s - 1]; t < starts[s]; t += chunk_tokens) {
      all.push_back(static_cast<int32_t>(t));
      all.push_back(static_cast<int32_t>(std::min(t + chunk_tokens, starts[s])));
    }
  }
  const auto n_chunks = (static_cast<int64_t>(all.size()) - 4 * n_tiles) / 2;
  for (const int64_t start : starts) all.push_back(static_cast<int32_t>(start));
  const auto n = static_cast<int64_t>(all.size());
  const Tensor device = to_device(context, Tensor(all.data(), DType::kI32, {n}), memory);
  const auto part = [&](int64_t begin, std::initializer_list<int64_t> dims) {
    return Tensor(device.as<int32_t>() + begin, DType::kI32, dims, device.device);
  };
  out.tiles = part(0, {n_tiles, 4});
  out.chunks = part(4 * n_tiles, {n_chunks, 2});
  out.device_starts = part(4 * n_tiles + 2 * n_chunks, {static_cast<int64_t>(starts.size())});
  out.chunk_tokens = chunk_tokens;
  return out;
}

}  // namespace msa
