// What an op runs on: workers or a GPU's stream, and scratch memory. State is an argument; models stay const.
#pragma once
#include <array>
#include <memory>

#include "core/buffer.h"
#include "core/device.h"
#include "core/thread_pool.h"

namespace msa {

struct CudaState;

/// One stream of work. Ops of one context run one after another; two contexts may run at the same time. On CUDA an op
/// returns before it has run: results are read with copy() (core/copy.h).
struct Context {
  /// Throws Error where the device cannot be used; nothing falls back to another one.
  explicit Context(int threads = 0, Device where = {});

  ThreadPool pool;
  Device device;
  std::shared_ptr<CudaState> cuda;  // null on the CPU
  /// Scratch of the op that runs now; its content does not outlive the op. Slot names are the op's own business.
  std::array<Buffer, 4> scratch;
};

}  // namespace msa
