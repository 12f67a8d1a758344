#include "bank/snapshot.h"

namespace msa {

LiveFlags LiveFlags::all(const Segment& segment) {
  LiveFlags live;
  live.flags_ = std::make_shared<const std::vector<uint8_t>>(static_cast<size_t>(segment.n_documents()), uint8_t{1});
  live.n_documents_ = segment.n_documents();
  live.n_chunks_ = segment.n_chunks();
  return live;
}

LiveFlags LiveFlags::none(const Segment& segment) {
  LiveFlags live;
  live.flags_ = std::make_shared<const std::vector<uint8_t>>(static_cast<size_t>(segment.n_documents()), uint8_t{0});
  return live;
}

LiveFlags LiveFlags::of(const Segment& segment, std::vector<uint8_t> flags) {
  MSA_CHECK(static_cast<int64_t>(flags.size()) == segment.n_documents());
  LiveFlags live;
  const std::span<const int64_t> starts = segment.chunk_starts();
  for (size_t i = 0; i < flags.size(); ++i) {
    live.n_documents_ += flags[i];
    live.n_chunks_ += flags[i] != 0 ? starts[i + 1] - starts[i] : 0;
  }
  live.flags_ = std::make_shared<const std::vector<uint8_t>>(std::move(flags));
  return live;
}

LiveFlags LiveFlags::with(const Segment& segment, std::span<const Change> changes) const {
  auto flags = std::make_shared<std::vector<uint8_t>>(*flags_);
  LiveFlags live = *this;
  for (const Change& change : changes) {
    uint8_t& flag = flags->at(static_cast<size_t>(change.index));
    if ((flag != 0) == change.live) continue;
    flag = change.live ? 1 : 0;
    const int sign = change.live ? 1 : -1;
    const auto starts = segment.chunk_starts().subspan(static_cast<size_t>(change.index), 2);
    live.n_documents_ += sign;
    live.n_chunks_ += sign * (starts[1] - starts[0]);
  }
  live.flags_ = std::move(flags);
  return live;
}

int64_t Snapshot::n_documents() const {
  int64_t n = 0;
  for (const LiveFlags& flags : live) n += flags.n_documents();
  return n;
}

int64_t Snapshot::n_chunks() const {
  int64_t n = 0;
  for (const LiveFlags& flags : live) n += flags.n_chunks();
  return n;
}

std::optional<Snapshot::Slot> Snapshot::find(DocumentId id) const {
  for (size_t s = 0; s < segments.size(); ++s) {
    if (id < segments[s]->ids().front() || id > segments[s]->ids().back()) continue;
    const std::optional<int64_t> index = segments[s]->find(id);
    if (index && live[s][static_cast<size_t>(*index)] != 0) return Slot{static_cast<int>(s), *index};
  }
  return std::nullopt;
}

}  // namespace msa
