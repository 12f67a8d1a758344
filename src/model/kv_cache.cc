#include "model/kv_cache.h"

#include <cstring>

namespace msa {

KvCache::KvCache(const ModelConfig& config, int capacity, DType dtype)
    : buffers_(static_cast<size_t>(config.n_layers)),
      dtype_(dtype),
      kv_heads_(config.n_kv_heads),
      head_dim_(config.head_dim),
      capacity_(capacity) {
  MSA_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  for (Buffer& b : buffers_)
    b.reserve(static_cast<size_t>(2 * capacity * config.kv_size() * traits(dtype).block_bytes));
}

Tensor KvCache::rows(int layer, bool value, int begin, int end) const {
  const int64_t row_bytes = static_cast<int64_t>(kv_heads_) * head_dim_ * traits(dtype_).block_bytes;
  char* base = static_cast<char*>(buffers_[static_cast<size_t>(layer)].data());
  return Tensor(base + ((value ? capacity_ : 0) + begin) * row_bytes, dtype_, {end - begin, kv_heads_, head_dim_});
}

void KvCache::append(int layer, const Tensor& k, const Tensor& v) {
  const int tokens = static_cast<int>(k.rows());
  MSA_CHECK(length_ + tokens <= capacity_ && k.dtype == DType::kF32 && v.dtype == DType::kF32);
  const int64_t n = static_cast<int64_t>(kv_heads_) * head_dim_;
  for (const bool value : {false, true}) {
    const Tensor& from = value ? v : k;
    const Tensor to = rows(layer, value, length_, length_ + tokens);
    for (int t = 0; t < tokens; ++t) {
      const float* source = from.row<float>(t);
      if (dtype_ == DType::kF32) {
        std::memcpy(to.row<float>(t), source, static_cast<size_t>(n) * sizeof(float));
      } else {
        bf16* target = to.row<bf16>(t);
        for (int64_t i = 0; i < n; ++i) target[i] = to_bf16(source[i]);
      }
    }
  }
}

KeyValueSpan KvCache::view(int layer, int n) const {
  MSA_CHECK(n <= capacity_);
  return {rows(layer, false, 0, n), rows(layer, true, 0, n)};
}

void KvCache::advance(int tokens) {
  length_ += tokens;
  MSA_CHECK(length_ <= capacity_);
}

void KvCache::truncate(int length) {
  MSA_CHECK(0 <= length && length <= length_);
  length_ = length;
}

void KvCache::assign(const KvCache& other) {
  MSA_CHECK(other.dtype_ == dtype_ && other.buffers_.size() == buffers_.size() && other.length_ <= capacity_);
  for (size_t layer = 0; layer < buffers_.size(); ++layer) {
    for (const bool value : {false, true}) {
      const Tensor from = other.rows(static_cast<int>(layer), value, 0, other.length_);
      std::memcpy(rows(static_cast<int>(layer), value, 0, other.length_).data, from.data,
                  static_cast<size_t>(from.bytes()));
    }
  }
  length_ = other.length_;
}

}  // namespace msa
