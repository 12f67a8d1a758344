// Numbers of rows, tokens and positions: ops on the CPU read the host's, kernels a copy that is made once a forward
// pass.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/context.h"
#include "core/tensor.h"

namespace msa {

struct Indices {
  Indices() = default;
  Indices(std::span<const int32_t> values) : host(values) {}     // NOLINT: a view converts by itself
  Indices(const std::vector<int32_t>& values) : host(values) {}  // NOLINT
  Indices(std::span<const int32_t> values, Tensor copy) : host(values), device(copy) {}

  int64_t size() const { return static_cast<int64_t>(host.size()); }
  Indices slice(int64_t begin, int64_t end) const {
    const auto part = host.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    return device.empty() ? Indices(part) : Indices(part, device.slice_rows(begin, end));
  }
  /// The copy that kernels read.
  const Tensor& on(const Context& context) const {
    MSA_CHECK(host.empty() || (!device.empty() && device.device == context.device));
    return device;
  }

  std::span<const int32_t> host;
  Tensor device;  // I32 [n] on the context's device; empty on the CPU
};

/// With a copy in `memory` where the context runs on CUDA. Both must live as long as the result is used.
Indices upload(Context& context, std::span<const int32_t> values, Buffer& memory);

/// Packed sequences: sequence s holds rows [starts[s], starts[s + 1]); starts[0] = 0. On CUDA also cut into the pieces
/// that blocks of threads take.
struct Sequences {
  /// Query rows of one attention block at most.
  static constexpr int kTileRows = 64;

  Sequences() = default;
  Sequences(std::span<const int64_t> rows) : starts(rows) {}     // NOLINT: a view converts by itself
  Sequences(const std::vector<int64_t>& rows) : starts(rows) {}  // NOLINT

  int64_t rows() const { return starts.empty() ? 0 : starts.back(); }

  std::span<const int64_t> starts;  // [sequences + 1]
  // On the context's device; empty on the CPU.
  Tensor device_starts;  // I32 [sequences + 1]
  Tensor tiles;          // I32 [n, 4]: first row, end, first row of the sequence, its end; those with most keys first
  Tensor chunks;         // I32 [n, 2]: first row, end
  int chunk_tokens = 0;  // of `chunks`
};

/// With copies for the GPU in `memory` where the context runs on CUDA. Both must live as long as the result is used.
Sequences upload(Context& context, std::span<const int64_t> starts, int chunk_tokens, Buffer& memory);

}  // namespace msa
