// Rank 0's side of a bank over several ranks (docs/parallel.md): who holds what, requests and their replies, lost
// ranks.
#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bank/shard.h"
#include "comm/exchange.h"
#include "core/error.h"
#include "engine/routed_memory.h"
#include "engine/shard_messages.h"

namespace msa {

struct ShardOptions {
  /// How long rank 0 waits for one reply.
  std::chrono::milliseconds timeout = std::chrono::minutes(2);
  /// Answer from the ranks that are left when one fails. Otherwise that is an Error.
  bool degraded = false;
};

/// A rank that failed, did not answer in time or has left, where the options do not let the others go on without it.
class LostRank : public Error {
 public:
  using Error::Error;
};

/// One snapshot over the ranks. Const while questions use it, but for the ranks that are lost meanwhile.
struct Holding {
  std::shared_ptr<const Snapshot> snapshot;
  std::shared_ptr<const Snapshot> own;  // rank 0's part
  std::vector<SlotRange> ranges;        // by rank; empty of a rank that holds nothing
  std::map<int, std::string> lost;      // rank → why, of those that held something
};

class ShardDriver {
 public:
  ShardDriver(Exchange& exchange, const ShardOptions& options);
  /// Ends the others' service.
  ~ShardDriver();
  ShardDriver(const ShardDriver&) = delete;
  ShardDriver& operator=(const ShardDriver&) = delete;

  int size() const { return exchange_.size(); }
  Device body_device() const { return exchange_.body_device(); }
  /// Ranks other than 0 that still serve.
  const std::vector<int>& others() const { return others_; }

  /// Shares the snapshot out among the ranks that are there, unless that is done.
  std::shared_ptr<const Holding> hold(const std::shared_ptr<const Snapshot>& snapshot);
  static MissingShare missing(const Holding& holding);

  uint32_t new_query() { return next_query_++; }
  /// A message with the request's head; the caller appends what the command takes.
  Message request(ShardCommand command, uint32_t query = 0);
  /// Sends it; the ticket fetches the replies.
  uint64_t ask(const std::vector<int>& ranks, const Message& request);
  /// Waits for a rank's reply; what follows the ReplyHead is to be read from `in`. False where the rank is lost and the
  /// options allow it; Error where they do not. `reply` must live as long as `in` is used.
  bool reply(int rank, uint64_t ticket, Message& reply, HeadReader& in);

  struct Asked {
    int rank;
    uint64_t ticket;
  };
  /// The same request to all of these, for for_each_reply().
  std::vector<Asked> ask_each(const std::vector<int>& ranks, const Message& request);
  /// As reply(), for replies whose body is of no interest: `use` gets each in this order, but none of a lost rank.
  void for_each_reply(const std::vector<Asked>& asked, const std::function<void(int rank, HeadReader& in)>& use);

 private:
  void lose(int rank, const std::string& why);

  Exchange& exchange_;
  ShardOptions options_;
  std::vector<int> others_;
  std::shared_ptr<Holding> held_;
  bool is_held_by_all_ = false;  // of those that are there
  uint64_t next_ticket_ = 1;
  uint32_t next_query_ = 1;
  std::map<std::pair<int, uint64_t>, Message> early_;  // replies that came while others were waited for
};

}  // namespace msa
