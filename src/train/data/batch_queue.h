// Batches made in the background, handed out in order.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

#include "train/batch.h"

namespace msa::train {

/// Threads make the batches of consecutive steps; next() gives them in order, whoever is ready first.
class BatchQueue {
 public:
  using Make = std::function<Batch(int64_t step)>;  // called by several threads at once

  /// `ahead`: batches ready or in the making at any time, at least `threads`.
  BatchQueue(Make make, int64_t first_step, int threads, int ahead);
  ~BatchQueue();  // stops
  BatchQueue(const BatchQueue&) = delete;
  BatchQueue& operator=(const BatchQueue&) = delete;

  /// The batch of the next step; waits for it. Rethrows what making it threw. Not after stop().
  Batch next();
  /// Ends the threads; each finishes the batch at hand.
  void stop();
  double wait_seconds() const;  // spent waiting inside next() so far

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msa::train
