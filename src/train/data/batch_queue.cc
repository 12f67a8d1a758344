#include "train/data/batch_queue.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"

namespace msa::train {

struct BatchQueue::Impl {
  struct Made {
    Batch batch;
    std::exception_ptr error;
  };

  Make make;
  int64_t next_to_make = 0;
  int64_t next_to_give = 0;
  int64_t ahead = 1;
  std::map<int64_t, Made> ready;  // by step
  bool stopped = false;
  double waited = 0;
  mutable std::mutex mutex;
  std::condition_variable room, arrival;
  std::vector<std::thread> threads;

  void work() {
    std::unique_lock lock(mutex);
    while (true) {
      room.wait(lock, [&] { return stopped || next_to_make < next_to_give + ahead; });
      if (stopped) return;
      const int64_t step = next_to_make++;
      lock.unlock();
      Made made;
      try {
        made.batch = make(step);
      } catch (...) {
        made.error = std::current_exception();
      }
      lock.lock();
      ready.emplace(step, std::move(made));
      arrival.notify_all();
    }
  }
};

BatchQueue::BatchQueue(Make make, int64_t first_step, int threads, int ahead) : impl_(std::make_unique<Impl>()) {
  MSA_CHECK(threads > 0);
  impl_->make = std::move(make);
  impl_->next_to_make = impl_->next_to_give = first_step;
  impl_->ahead = std::max(ahead, threads);
  for (int i = 0; i < threads; ++i) impl_->threads.emplace_back([impl = impl_.get()] { impl->work(); });
}

BatchQueue::~BatchQueue() { stop(); }

Batch BatchQueue::next() {
  std::unique_lock lock(impl_->mutex);
  MSA_CHECK(!impl_->stopped);
  const auto start = std::chrono::steady_clock::now();
  impl_->arrival.wait(lock, [&] { return impl_->ready.contains(impl_->next_to_give); });
  impl_->waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  Impl::Made made = std::move(impl_->ready.extract(impl_->next_to_give++).mapped());
  impl_->room.notify_one();
  lock.unlock();
  if (made.error) std::rethrow_exception(made.error);
  return std::move(made.batch);
}

void BatchQueue::stop() {
  {
    std::scoped_lock lock(impl_->mutex);
    impl_->stopped = true;
  }
  impl_->room.notify_all();
  for (std::thread& thread : impl_->threads) {
    if (thread.joinable()) thread.join();
  }
}

double BatchQueue::wait_seconds() const {
  std::scoped_lock lock(impl_->mutex);
  return impl_->waited;
}

}  // namespace msa::train
