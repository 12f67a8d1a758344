#include "model/kv_cache.h"

#include <cstring>

#include "core/copy.h"

namespace msa {

KvCache::KvCache(const ModelConfig& config, int capacity, DType dtype, Device device)
    : buffers_(static_cast<size_t>(config.n_layers)),
      dtype_(dtype),
      device_(device),
      kv_heads_(config.n_kv_heads),
      head_dim_(config.head_dim),
      capacity_(capacity) {
  MSA_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  for (Buffer& b : buffers_)
    b.reserve(static_cast<size_t>(2 * capacity * config.kv_size() * traits(dtype).block_bytes), device);
  if (on_cuda(device) && dtype == DType::kBF16) prepare_decoding(config);
}

/// One piece of memory for all layers: length and counters (begin() writes them), then partial results.
void KvCache::prepare_decoding(const ModelConfig& config) {
  const int64_t words = 1 + kv_heads_, partials = static_cast<int64_t>(config.n_heads) * DecodeCache::kSplits;
  const int64_t head_words = (words + 15) / 16 * 16;
  const Tensor all = decode_memory_.tensor(DType::kI32, {head_words + partials * (head_dim_ + 2)}, device_);
  for (int layer = 0; layer < config.n_layers; ++layer) {
    DecodeCache c;
    c.k = rows(layer, false, 0, capacity_);
    c.v = rows(layer, true, 0, capacity_);
    c.length = Tensor(all.data, DType::kI32, {1}, device_);
    c.counters = Tensor(all.as<int32_t>() + 1, DType::kI32, {kv_heads_}, device_);
    c.partials = Tensor(all.as<int32_t>() + head_words, DType::kF32,
                        {config.n_heads, DecodeCache::kSplits, head_dim_ + 2}, device_);
    decoding_.push_back(c);
  }
}

void KvCache::begin(Context& context) {
  if (decoding_.empty()) return;
  std::vector<int32_t> words(static_cast<size_t>(1 + kv_heads_), 0);
  words[0] = length_;
  const auto n = static_cast<int64_t>(words.size());
  copy(context, Tensor(words.data(), DType::kI32, {n}), Tensor(decode_memory_.data(), DType::kI32, {n}, device_));
}

const DecodeCache* KvCache::decoding(int layer) const {
  return decoding_.empty() ? nullptr : &decoding_[static_cast<size_t>(layer)];
}

Tensor KvCache::rows(int layer, bool value, int begin, int end) const {
  const int64_t row_bytes = static_cast<int64_t>(kv_heads_) * head_dim_ * traits(dtype_).block_bytes;
  char* base = static_cast<char*>(buffers_[static_cast<size_t>(layer)].data());
  return Tensor(base + ((value ? capacity_ : 0) + begin) * row_bytes, dtype_, {end - begin, kv_heads_, head_dim_},
                device_);
}

void KvCache::append(Context& context, int layer, const Tensor& k, const Tensor& v) {
  const int tokens = static_cast<int>(k.rows());
  MSA_CHECK(length_ + tokens <= capacity_ && context.device == device_);
  if (on_cuda(device_)) {
    copy(context, k, rows(layer, false, length_, length_ + tokens));
    copy(context, v, rows(layer, true, length_, length_ + tokens));
    return;
  }
  MSA_CHECK(k.dtype == DType::kF32 && v.dtype == DType::kF32);
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

void KvCache::assign(Context& context, const KvCache& other) {
  MSA_CHECK(other.dtype_ == dtype_ && other.buffers_.size() == buffers_.size() && other.length_ <= capacity_);
  for (size_t layer = 0; layer < buffers_.size(); ++layer) {
    for (const bool value : {false, true}) {
      const Tensor from = other.rows(static_cast<int>(layer), value, 0, other.length_);
      copy(context, from, rows(static_cast<int>(layer), value, 0, other.length_));
    }
  }
  length_ = other.length_;
}

}  // namespace msa
