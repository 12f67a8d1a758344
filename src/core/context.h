// What an op runs on: workers and scratch memory. State is an argument; models stay const.
#pragma once
#include <array>

#include "core/buffer.h"
#include "core/thread_pool.h"

namespace msa {

/// One stream of work. Ops of one context run one after another; two contexts may run at the same time.
struct Context {
  explicit Context(int threads = 0) : pool(threads) {}

  ThreadPool pool;
  /// Scratch of the op that runs now; its content does not outlive the op. Slot names are the op's own business.
  std::array<Buffer, 4> scratch;
};

}  // namespace msa
