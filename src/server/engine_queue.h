// The one thread that owns model and bank, and the bounded queue in front of it.
#pragma once
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>

namespace msa::server {

class EngineQueue {
 public:
  explicit EngineQueue(size_t capacity);
  ~EngineQueue();  // closes
  EngineQueue(const EngineQueue&) = delete;
  EngineQueue& operator=(const EngineQueue&) = delete;

  /// Throws HttpError: 429 when the queue is full, 503 once it is closed. A job must not throw.
  void push(std::function<void()> job);
  /// On the engine thread; waits for the result and passes on what it throws. 503 where its turn comes after close().
  template <class F>
  auto run(F f) -> decltype(f()) {
    auto task = std::make_shared<std::packaged_task<decltype(f())()>>([this, f = std::move(f)]() mutable {
      refuse_if_closed();
      return f();
    });
    auto result = task->get_future();
    push([task] { (*task)(); });
    return result.get();
  }

  /// Nothing more is taken; what is queued still runs, and asks refuse_if_closed().
  void close();
  void refuse_if_closed() const;  // throws HttpError (503)
  size_t size() const;            // waiting, without the one that runs
  size_t capacity() const { return capacity_; }

 private:
  void work();

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace msa::server
