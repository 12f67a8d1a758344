#include "core/copy.h"

#include <cstring>

#include "core/cuda.h"

namespace msa {
namespace {

Tensor moved(Context& context, const Tensor& from, Device device, Buffer& memory) {
  if (from.device == device) return from;
  Tensor to = from;
  to.row_bytes = from.dense_row_bytes();
  to.device = device;
  memory.reserve(static_cast<size_t>(to.bytes()) + 1, device);
  to.data = memory.data();
  copy(context, from, to);
  return to;
}

}  // namespace

void copy(Context& context, const Tensor& from, const Tensor& to) {
  MSA_CHECK(from.dtype == to.dtype && from.rows() == to.rows() && from.row_elements() == to.row_elements());
  if (on_cuda(from) || on_cuda(to)) {
    if constexpr (kHasCuda) {
      MSA_CHECK(context.cuda != nullptr);
      return cuda_copy(*context.cuda, from, to);
    }
    MSA_CHECK(false && "a CUDA tensor in a build without CUDA");
  }
  const auto bytes = static_cast<size_t>(from.dense_row_bytes());
  if (from.is_dense() && to.is_dense()) {
    if (bytes > 0) std::memcpy(to.data, from.data, bytes * static_cast<size_t>(from.rows()));
    return;
  }
  for (int64_t r = 0; r < from.rows(); ++r) std::memcpy(to.row<char>(r), from.row<char>(r), bytes);
}

Tensor to_device(Context& context, const Tensor& from, Buffer& memory) {
  return moved(context, from, context.device, memory);
}

Tensor to_host(Context& context, const Tensor& from, Buffer& memory) { return moved(context, from, {}, memory); }

std::shared_ptr<CudaMark> mark(Context& context) {
  if (context.cuda == nullptr) return nullptr;
  if constexpr (kHasCuda) return cuda_mark(*context.cuda);
  return nullptr;
}

void wait([[maybe_unused]] const CudaMark* when) {
  if constexpr (kHasCuda) {
    if (when != nullptr) cuda_wait(*when);
  }
}

Tensor to_host_after(Context& context, const CudaMark* when, const Tensor& from, Staging& memory) {
  if (!on_cuda(from)) return from;
  MSA_CHECK(when != nullptr && from.is_dense() && context.cuda != nullptr);
  Tensor to = from;
  to.device = {};
  to.data = memory.tensor(context, DType::kI8, {from.bytes()}).data;
  if constexpr (kHasCuda) cuda_copy_after(*context.cuda, *when, from, to);
  return to;
}

void synchronize(Context& context) {
  if (context.cuda == nullptr) return;
  if constexpr (kHasCuda) cuda_synchronize(*context.cuda);
}

}  // namespace msa
