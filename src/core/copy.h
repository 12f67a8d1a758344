// Tensors from one memory to another.
#pragma once
#include "core/context.h"
#include "core/staging.h"
#include "core/tensor.h"

namespace msa {

/// Copies rows of one type and size, within the host or between host and the context's device; rows may be strided.
/// Ordered with the context's ops; to the host it returns when the bytes are there.
void copy(Context& context, const Tensor& from, const Tensor& to);

/// `from` on the context's device: itself where it is there, else a dense copy in `memory`.
Tensor to_device(Context& context, const Tensor& from, Buffer& memory);
/// `from` in host memory: itself where it is there, else a dense copy in `memory`.
Tensor to_host(Context& context, const Tensor& from, Buffer& memory);

/// A moment in the context's work; null on the CPU, whose work is done when it returns.
struct CudaMark;
std::shared_ptr<CudaMark> mark(Context& context);
/// Returns when all work before `when` has run; at once where it is null.
void wait(const CudaMark* when);
/// As to_host of a dense tensor, but waits only for the work before `when`: what was given later goes on meanwhile.
Tensor to_host_after(Context& context, const CudaMark* when, const Tensor& from, Staging& memory);

/// Returns when everything given to the context so far has run.
void synchronize(Context& context);

}  // namespace msa
