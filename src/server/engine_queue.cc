#include "server/engine_queue.h"

#include <utility>

#include "server/http_error.h"

namespace msa::server {

EngineQueue::EngineQueue(size_t capacity) : capacity_(capacity), thread_([this] { work(); }) {}

EngineQueue::~EngineQueue() { close(); }

void EngineQueue::push(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) throw HttpError{503, "the server is shutting down", "", "shutting_down"};
    if (jobs_.size() >= capacity_) {
      throw HttpError{429, "too many requests are waiting (fix: try again later, or raise --max-queue)", "",
                      "queue_full"};
    }
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
}

void EngineQueue::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void EngineQueue::refuse_if_closed() const {
  const std::lock_guard lock(mutex_);
  if (closed_) throw HttpError{503, "the server is shutting down", "", "shutting_down"};
}

size_t EngineQueue::size() const {
  const std::lock_guard lock(mutex_);
  return jobs_.size();
}

void EngineQueue::work() {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return closed_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

}  // namespace msa::server
