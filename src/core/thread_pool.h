// A fixed set of workers for data-parallel loops. The calling thread is worker 0.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

namespace msa {

class ThreadPool {
 public:
  /// `threads` >= 1, the caller included; 0 takes the number of CPUs this process may run on.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  /// Calls body(begin, end, worker) over disjoint pieces that cover [0, n), each at least `grain` long but the last,
  /// and returns when all are done. The pieces handed to a worker are contiguous and depend only on n, grain and the
  /// number of threads, so results do not depend on timing. Not reentrant; one caller at a time.
  /// An exception from the body is rethrown here.
  void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msa
