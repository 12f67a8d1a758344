#include "core/quant.h"

#include <bit>
#include <cstring>

#include "core/error.h"

namespace msa {
namespace {

static_assert(sizeof(BlockQ8_0) == traits(DType::kQ8_0).block_bytes);
static_assert(sizeof(BlockQ4_0) == traits(DType::kQ4_0).block_bytes);
static_assert(sizeof(BlockQ4_1) == traits(DType::kQ4_1).block_bytes);
static_assert(sizeof(BlockQ5_0) == traits(DType::kQ5_0).block_bytes);
static_assert(sizeof(BlockQ4_K) == traits(DType::kQ4_K).block_bytes);
static_assert(sizeof(BlockQ6_K) == traits(DType::kQ6_K).block_bytes);

void decode(const BlockQ8_0& b, float* out) {
  const float scale = half_to_float(b.scale);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(b.quants[i]) * scale;
}

void decode(const BlockQ4_0& b, float* out) {
  const float scale = half_to_float(b.scale);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>((b.quants[i] & 15) - 8);
    out[i + 16] = scale * static_cast<float>((b.quants[i] >> 4) - 8);
  }
}

void decode(const BlockQ4_1& b, float* out) {
  const float scale = half_to_float(b.scale);
  const float minimum = half_to_float(b.minimum);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(b.quants[i] & 15) + minimum;
    out[i + 16] = scale * static_cast<float>(b.quants[i] >> 4) + minimum;
  }
}

void decode(const BlockQ5_0& b, float* out) {
  const float scale = half_to_float(b.scale);
  const auto high = [&](int i) { return ((b.high_bits[i / 8] >> (i % 8)) & 1) << 4; };
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(((b.quants[i] & 15) | high(i)) - 16);
    out[i + 16] = scale * static_cast<float>(((b.quants[i] >> 4) | high(i + 16)) - 16);
  }
}

void decode(const BlockQ4_K& b, float* out) {
  const float scale = half_to_float(b.scale);
  const float minimum = half_to_float(b.minimum);
  for (int j = 0; j < 8; ++j, out += 32) {
    uint8_t s = 0, m = 0;
    q4_k_scale_min(b.scales, j, s, m);
    const float d = scale * static_cast<float>(s);
    const float dm = minimum * static_cast<float>(m);
    const uint8_t* q = b.quants + (j / 2) * 32;
    const int shift = (j % 2) * 4;
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>((q[i] >> shift) & 15) - dm;
  }
}

void decode(const BlockQ6_K& b, float* out) {
  const float scale = half_to_float(b.scale);
  for (int half = 0; half < 2; ++half) {
    for (int k = 0; k < 4; ++k) {
      const uint8_t* low = b.low_bits + half * 64 + (k % 2) * 32;
      const uint8_t* high = b.high_bits + half * 32;
      for (int i = 0; i < 32; ++i, ++out) {
        const int q = ((low[i] >> (k / 2 * 4)) & 15) | (((high[i] >> (2 * k)) & 3) << 4);
        *out = scale * static_cast<float>(b.scales[half * 8 + k * 2 + i / 16]) * static_cast<float>(q - 32);
      }
    }
  }
}

template <class Block>
void decode_blocks(DType type, const void* row, int64_t n, float* out) {
  const int64_t elements = traits(type).block_elements;
  const char* bytes = static_cast<const char*>(row);
  for (int64_t i = 0; i < n; i += elements, bytes += sizeof(Block)) {
    Block block;
    std::memcpy(&block, bytes, sizeof(Block));
    decode(block, out + i);
  }
}

template <class T, class Convert>
void decode_plain(const void* row, int64_t n, float* out, Convert convert) {
  const char* bytes = static_cast<const char*>(row);
  for (int64_t i = 0; i < n; ++i) {
    T x;
    std::memcpy(&x, bytes + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    out[i] = convert(x);
  }
}

/// The largest magnitude of 32 numbers, NaN left out. Of their bits as integers, which unlike std::max over floats the
/// compiler does in vectors.
float largest_magnitude(const float* x) {
  int32_t largest = 0;
  for (int i = 0; i < 32; ++i) {
    const int32_t magnitude = std::bit_cast<int32_t>(x[i]) & 0x7fffffff;
    const int32_t number = magnitude > 0x7f800000 ? 0 : magnitude;
    largest = number > largest ? number : largest;
  }
  return std::bit_cast<float>(largest);
}

/// x · factor as std::round rounds it, NaN as 0. Two loops, neither with a branch: the compiler does both in vectors.
void round_to_int8(const float* x, float factor, int8_t* out) {
  constexpr int32_t kMost = 0x42fe0000, kInfinity = 0x7f800000;  // 127 and infinity as bits
  float magnitudes[32];
  int32_t signs[32];  // 0 or -1
  for (int i = 0; i < 32; ++i) {
    const auto bits = std::bit_cast<int32_t>(x[i] * factor);
    const int32_t magnitude = bits & 0x7fffffff;
    signs[i] = bits >> 31;
    const int32_t bounded = magnitude > kMost ? kMost : magnitude;
    magnitudes[i] = std::bit_cast<float>(magnitude > kInfinity ? 0 : bounded);
  }
  for (int i = 0; i < 32; ++i) {
    const auto down = static_cast<int32_t>(magnitudes[i]);
    const float rest = magnitudes[i] - static_cast<float>(down);
    const int32_t rounded = down + (rest >= 0.5f ? 1 : 0);
    out[i] = static_cast<int8_t>((rounded ^ signs[i]) - signs[i]);
  }
}

BlockQ8_0 encode_q8_0(const float* x) {
  const float scale = largest_magnitude(x) / 127.0f;
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  BlockQ8_0 block;
  block.scale = float_to_half(scale);
  round_to_int8(x, inverse, block.quants);
  return block;
}

template <class T, class Encode>
void encode_each(const float* x, int64_t n, int64_t step, void* row, Encode encode) {
  char* bytes = static_cast<char*>(row);
  for (int64_t i = 0; i < n; i += step, bytes += sizeof(T)) {
    const T value = encode(x + i);
    std::memcpy(bytes, &value, sizeof(T));
  }
}

}  // namespace

void dequantise_row(DType type, const void* row, int64_t n, float* out) {
  MSA_CHECK(n >= 0 && n % traits(type).block_elements == 0);
  switch (type) {
    case DType::kF32: return decode_plain<float>(row, n, out, [](float x) { return x; });
    case DType::kF16: return decode_plain<uint16_t>(row, n, out, half_to_float);
    case DType::kBF16: return decode_plain<bf16>(row, n, out, [](bf16 x) { return to_float(x); });
    case DType::kQ8_0: return decode_blocks<BlockQ8_0>(type, row, n, out);
    case DType::kQ4_0: return decode_blocks<BlockQ4_0>(type, row, n, out);
    case DType::kQ4_1: return decode_blocks<BlockQ4_1>(type, row, n, out);
    case DType::kQ5_0: return decode_blocks<BlockQ5_0>(type, row, n, out);
    case DType::kQ4_K: return decode_blocks<BlockQ4_K>(type, row, n, out);
    case DType::kQ6_K: return decode_blocks<BlockQ6_K>(type, row, n, out);
    case DType::kI8:
    case DType::kI32:
    case DType::kI64: break;
  }
  MSA_CHECK(false && "integers are no weights");
}

void quantise_row(DType type, const float* x, int64_t n, void* row) {
  MSA_CHECK(n >= 0 && n % traits(type).block_elements == 0);
  switch (type) {
    case DType::kF32: return encode_each<float>(x, n, 1, row, [](const float* v) { return *v; });
    case DType::kF16: return encode_each<uint16_t>(x, n, 1, row, [](const float* v) { return float_to_half(*v); });
    case DType::kBF16: return encode_each<bf16>(x, n, 1, row, [](const float* v) { return to_bf16(*v); });
    case DType::kQ8_0: return encode_each<BlockQ8_0>(x, n, 32, row, encode_q8_0);
    default: break;
  }
  MSA_CHECK(false && "this type cannot be written");
}

}  // namespace msa
