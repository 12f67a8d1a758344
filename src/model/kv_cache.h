// Keys and values of the tokens seen so far: template head, question, fetched text, generated tokens.
#pragma once
#include <vector>

#include "core/context.h"
#include "model/config.h"
#include "ops/attention.h"
#include "ops/decode_attention.h"

namespace msa {

class KvCache {
 public:
  KvCache() = default;
  /// Room for `capacity` tokens in every layer; `dtype` F32 or BF16.
  KvCache(const ModelConfig& config, int capacity, DType dtype, Device device = {});

  int length() const { return length_; }
  int capacity() const { return capacity_; }

  /// Writes k, v F32 (on CUDA: of the cache's type) [T, G, d] (rows may be strided) of one layer behind the current
  /// length.
  void append(Context& context, int layer, const Tensor& k, const Tensor& v);
  /// The layer's first `rows` tokens: [rows, G, d].
  KeyValueSpan view(int layer, int rows) const;

  /// Before a forward pass: the length goes to the device.
  void begin(Context& context);
  /// The layer as one decoding step on CUDA sees it; null on the CPU and for other types than BF16.
  const DecodeCache* decoding(int layer) const;

  /// Called once all layers have appended their T rows.
  void advance(int tokens);
  /// Forgets all but the first `length` tokens.
  void truncate(int length);
  /// Begins with a copy of all of `other`'s tokens.
  void assign(Context& context, const KvCache& other);

 private:
  Tensor rows(int layer, bool value, int begin, int end) const;
  void prepare_decoding(const ModelConfig& config);

  std::vector<Buffer> buffers_;        // per layer: K [capacity, G·d], then V [capacity, G·d]
  std::vector<DecodeCache> decoding_;  // per layer, on CUDA
  Buffer decode_memory_;
  DType dtype_ = DType::kF32;
  Device device_;
  int kv_heads_ = 0;
  int head_dim_ = 0;
  int capacity_ = 0;
  int length_ = 0;
};

}  // namespace msa
