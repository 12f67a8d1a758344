#include "engine/shard_driver.h"

#include <algorithm>
#include <utility>

#include "core/log.h"

namespace msa {

ShardDriver::ShardDriver(Exchange& exchange, const ShardOptions& options) : exchange_(exchange), options_(options) {
  MSA_CHECK(exchange.rank() == 0);
  for (int rank = 1; rank < exchange.size(); ++rank) others_.push_back(rank);
}

ShardDriver::~ShardDriver() {
  std::vector<int> all;  // a lost rank too: it may only have failed at something
  for (int rank = 1; rank < size(); ++rank) all.push_back(rank);
  exchange_.send(all, request(ShardCommand::kStop));
}

Message ShardDriver::request(ShardCommand command, uint32_t query) {
  Message message;
  HeadWriter(message.head).put(RequestHead{next_ticket_, command, query});
  return message;
}

uint64_t ShardDriver::ask(const std::vector<int>& ranks, const Message& request) {
  exchange_.send(ranks, request);
  return next_ticket_++;
}

void ShardDriver::lose(int rank, const std::string& why) {
  std::erase(others_, rank);
  is_held_by_all_ = false;
  const std::string text = "rank " + std::to_string(rank) + ": " + why;
  if (held_ != nullptr) held_->lost[rank] = text;
  if (!options_.degraded) {
    throw LostRank(why, "rank " + std::to_string(rank),
                   "mend that rank, start fewer, or answer from the others with --degraded");
  }
  spdlog::warn("{}; it is left out from here on", text);
}

bool ShardDriver::reply(int rank, uint64_t ticket, Message& reply, HeadReader& in) {
  if (std::find(others_.begin(), others_.end(), rank) == others_.end()) return false;
  const auto deadline = Exchange::Clock::now() + options_.timeout;
  while (true) {
    if (const auto early = early_.find({rank, ticket}); early != early_.end()) {
      reply = std::move(early->second);
      early_.erase(early);
    } else if (const std::string problem = exchange_.receive(rank, deadline, reply); !problem.empty()) {
      exchange_.give_up(rank);
      lose(rank, problem);
      return false;
    }
    in = HeadReader(reply.head);
    const auto head = in.get<ReplyHead>();
    if (head.ticket != ticket) {
      early_[{rank, head.ticket}] = std::exchange(reply, {});
      continue;
    }
    if (head.failed == 0) return true;
    lose(rank, in.get_text());
    return false;
  }
}

std::vector<ShardDriver::Asked> ShardDriver::ask_each(const std::vector<int>& ranks, const Message& request) {
  const uint64_t ticket = ask(ranks, request);
  std::vector<Asked> asked;
  for (const int rank : ranks) asked.push_back({rank, ticket});
  return asked;
}

void ShardDriver::for_each_reply(const std::vector<Asked>& asked,
                                 const std::function<void(int rank, HeadReader& in)>& use) {
  for (const auto& [rank, ticket] : asked) {
    Message message;
    HeadReader in;
    if (reply(rank, ticket, message, in)) use(rank, in);
  }
}

std::shared_ptr<const Holding> ShardDriver::hold(const std::shared_ptr<const Snapshot>& snapshot) {
  if (held_ != nullptr && held_->snapshot == snapshot && is_held_by_all_) return held_;
  held_ = std::make_shared<Holding>();
  held_->snapshot = snapshot;
  const std::vector<SlotRange> ranges = shard_ranges(*snapshot, static_cast<int>(others_.size()) + 1);
  held_->ranges.resize(static_cast<size_t>(size()));
  held_->ranges[0] = ranges[0];
  held_->own = part_of(*snapshot, ranges[0]);
  is_held_by_all_ = true;
  std::vector<Asked> asked;
  for (size_t i = 0; i < others_.size(); ++i) {
    const SlotRange& range = ranges[i + 1];
    held_->ranges[static_cast<size_t>(others_[i])] = range;
    Message message = request(ShardCommand::kHold);
    HeadWriter out(message.head);
    out.put(range);
    put_plan(out, plan_of(*snapshot, range));
    asked.push_back({others_[i], ask({others_[i]}, message)});
  }
  for_each_reply(asked, [](int, HeadReader&) {});
  for (int rank = 0; rank < size(); ++rank) {
    const SlotRange& range = held_->ranges[static_cast<size_t>(rank)];
    spdlog::debug("rank {} holds documents {} to {} of {}", rank, range.begin, range.end, ranges.back().end);
  }
  return held_;
}

MissingShare ShardDriver::missing(const Holding& holding) {
  MissingShare share;
  share.of_documents = holding.snapshot->n_documents();
  share.of_chunks = holding.snapshot->n_chunks();
  for (const auto& [rank, why] : holding.lost) {
    const auto part = part_of(*holding.snapshot, holding.ranges[static_cast<size_t>(rank)]);
    share.documents += part->n_documents();
    share.chunks += part->n_chunks();
    share.why.push_back(why);
  }
  return share;
}

}  // namespace msa
