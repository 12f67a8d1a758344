// What this processor can do at most, measured in the same run: the other half of every benchmark's figure.
#pragma once
#include <time.h>

#include <algorithm>

#include "core/context.h"
#include "ops/linear.h"

namespace msa::bench {

/// One worker is timed by the clock of its own thread, so that other programs on the machine disturb it little; several
/// workers by the clock on the wall.
inline double now_seconds(const Context& context) {
  timespec t{};
  clock_gettime(context.pool.threads() == 1 && !on_cuda(context.device) ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC,
                &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// The best of `repeats` runs of f.
template <class F>
double best_seconds(const Context& context, int repeats, const F& f) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const double start = now_seconds(context);
    f();
    best = std::min(best, now_seconds(context) - start);
  }
  return best;
}

/// GFLOP/s of a large matrix product in this format, the best of many; measured once.
double product_limit(Context& context, LinearFormat format);

/// GB/s of reading memory far larger than the caches, on CUDA of copying it (reads and writes); measured once.
double read_limit(Context& context);

}  // namespace msa::bench
