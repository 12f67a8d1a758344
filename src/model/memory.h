// What the forward pass asks of a memory. The model knows nothing of banks and routers behind it.
#pragma once
#include <span>
#include <vector>

#include "core/context.h"
#include "ops/attention.h"

namespace msa {

class Memory {
 public:
  virtual ~Memory() = default;

  /// Routes one layer: q F32 [n_routed, H·d], the raw projection W_QR h of the routed query tokens.
  /// Fixes the layer's selection until the next call. n_routed >= 1. May return before the selection is known.
  virtual void route(Context& context, int layer, const Tensor& q) = 0;

  /// Waits for the content of the layer's selection: K̄, V̄ spans [chunks, G, d], valid until the next
  /// route of that layer.
  virtual std::span<const KeyValueSpan> gather(int layer) = 0;
};

}  // namespace msa
