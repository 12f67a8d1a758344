#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/cpu.h"
#include "core/error.h"

namespace msa {
namespace {

// Long enough to bridge the gaps between the ops of one layer, short enough not to burn an idle core.
constexpr int kSpins = 20000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

struct ThreadPool::Impl {
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> generation{0};
  std::atomic<int> running{0};
  std::atomic<bool> stop{false};

  const std::function<void(int64_t, int64_t, int)>* body = nullptr;
  int64_t n = 0;
  int64_t piece = 0;
  std::mutex error_mutex;
  std::exception_ptr error;

  void run_piece(int worker) {
    const int64_t begin = std::min<int64_t>(n, piece * worker);
    const int64_t end = std::min<int64_t>(n, begin + piece);
    if (begin >= end) return;
    try {
      (*body)(begin, end, worker);
    } catch (...) {
      std::scoped_lock lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  }

  void work(int worker) {
    uint64_t seen = 0;
    while (true) {
      for (int i = 0; i < kSpins && generation.load(std::memory_order_acquire) == seen; ++i) pause();
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen; });
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_acquire)) return;
      run_piece(worker);
      running.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  void start_round() {
    {
      std::scoped_lock lock(mutex);
      generation.fetch_add(1, std::memory_order_acq_rel);
    }
    wake.notify_all();
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  if (threads <= 0) threads = available_cpus();
  for (int i = 1; i < threads; ++i) impl_->workers.emplace_back([this, i] { impl_->work(i); });
}

ThreadPool::~ThreadPool() {
  impl_->stop.store(true, std::memory_order_release);
  impl_->start_round();
  for (std::thread& t : impl_->workers) t.join();
}

int ThreadPool::threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body) {
  if (n <= 0) return;
  const int64_t most = std::max<int64_t>(1, n / std::max<int64_t>(1, grain));
  const int64_t pieces = std::min<int64_t>(threads(), most);
  if (pieces == 1) return body(0, n, 0);
  MSA_CHECK(impl_->running.load() == 0);
  impl_->body = &body;
  impl_->n = n;
  impl_->piece = (n + pieces - 1) / pieces;
  impl_->error = nullptr;
  impl_->running.store(threads() - 1, std::memory_order_release);
  impl_->start_round();
  impl_->run_piece(0);
  for (int spins = 0; impl_->running.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins)
      pause();
    else
      std::this_thread::yield();
  }
  if (impl_->error) std::rethrow_exception(impl_->error);
}

}  // namespace msa
