#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>

#include "comm/exchange.h"
#include "core/error.h"

namespace msa {
namespace {

/// A message in host memory, shared by all its receivers.
struct Letter {
  std::vector<std::byte> head, body;
};

/// Everybody's mail.
class PostOffice {
 public:
  explicit PostOffice(int size) : has_left_(static_cast<size_t>(size)) {
    mail_.resize(static_cast<size_t>(size) * static_cast<size_t>(size));
  }

  int size() const { return static_cast<int>(has_left_.size()); }

  void post(int from, const std::vector<int>& to, const std::shared_ptr<const Letter>& letter) {
    const std::lock_guard lock(mutex_);
    for (const int r : to) box(from, r).push_back(letter);
    changed_.notify_all();
  }

  /// Null where none comes in time, or ever.
  std::shared_ptr<const Letter> take(int from, int to, Exchange::Clock::time_point deadline, std::string& why) {
    std::unique_lock lock(mutex_);
    std::deque<std::shared_ptr<const Letter>>& mail = box(from, to);
    const auto left = [&] { return has_left_[static_cast<size_t>(from)] != 0; };
    if (!changed_.wait_until(lock, deadline, [&] { return !mail.empty() || left(); }))
      why = "it did not answer in time";
    if (mail.empty()) {
      if (why.empty()) why = "it has left the group";
      return nullptr;
    }
    std::shared_ptr<const Letter> letter = std::move(mail.front());
    mail.pop_front();
    why.clear();
    return letter;
  }

  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    has_left_[static_cast<size_t>(rank)] = 1;
    changed_.notify_all();
  }

 private:
  std::deque<std::shared_ptr<const Letter>>& box(int from, int to) {
    return mail_[static_cast<size_t>(from) * has_left_.size() + static_cast<size_t>(to)];
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::deque<std::shared_ptr<const Letter>>> mail_;  // [from][to]
  std::vector<char> has_left_;                                   // [size]
};

class ThreadExchange final : public Exchange {
 public:
  ThreadExchange(std::shared_ptr<PostOffice> office, int rank) : office_(std::move(office)), rank_(rank) {}
  ~ThreadExchange() override { office_->leave(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return office_->size(); }

  void send(const std::vector<int>& to, const Message& message) override {
    auto letter = std::make_shared<Letter>();
    letter->head = message.head;
    letter->body.resize(message.body_bytes());
    if (!letter->body.empty()) std::memcpy(letter->body.data(), message.body.data, letter->body.size());
    office_->post(rank_, to, letter);
  }

  std::string receive(int from, Clock::time_point deadline, Message& message) override {
    std::string why;
    const std::shared_ptr<const Letter> letter = office_->take(from, rank_, deadline, why);
    if (letter == nullptr) return why;
    message.head = letter->head;
    message.body = {};
    if (letter->body.empty()) return {};
    message.body = message.memory.tensor(DType::kI8, {static_cast<int64_t>(letter->body.size())});
    std::memcpy(message.body.data, letter->body.data(), letter->body.size());
    return {};
  }

  void give_up(int /*rank*/) override {}

 private:
  std::shared_ptr<PostOffice> office_;
  int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Exchange>> thread_exchanges(int size) {
  MSA_CHECK(size >= 1);
  const auto office = std::make_shared<PostOffice>(size);
  std::vector<std::unique_ptr<Exchange>> ends;
  for (int rank = 0; rank < size; ++rank) ends.push_back(std::make_unique<ThreadExchange>(office, rank));
  return ends;
}

}  // namespace msa
