// Element types of tensors: plain numbers, and the block-quantised types of GGUF files.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

namespace msa {

enum class DType : uint8_t { kF32, kF16, kBF16, kI8, kI32, kI64, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ4_K, kQ6_K };

struct DTypeTraits {
  const char* name;
  int64_t block_elements;  // elements that share one block; 1 for plain types
  int64_t block_bytes;
};

constexpr DTypeTraits traits(DType t) {
  switch (t) {
    case DType::kF32: return {"F32", 1, 4};
    case DType::kF16: return {"F16", 1, 2};
    case DType::kBF16: return {"BF16", 1, 2};
    case DType::kI8: return {"I8", 1, 1};
    case DType::kI32: return {"I32", 1, 4};
    case DType::kI64: return {"I64", 1, 8};
    case DType::kQ8_0: return {"Q8_0", 32, 34};
    case DType::kQ4_0: return {"Q4_0", 32, 18};
    case DType::kQ4_1: return {"Q4_1", 32, 20};
    case DType::kQ5_0: return {"Q5_0", 32, 22};
    case DType::kQ4_K: return {"Q4_K", 256, 144};
    case DType::kQ6_K: return {"Q6_K", 256, 210};
  }
  return {"?", 1, 0};
}

constexpr bool is_quantised(DType t) { return traits(t).block_elements > 1; }

/// bfloat16: the upper half of a float32. Conversion rounds to nearest even; NaN stays NaN.
struct bf16 {
  uint16_t bits;
};

inline float to_float(bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline float to_float(float x) { return x; }

inline bf16 to_bf16(float x) {
  uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

/// IEEE half precision bits to float32 (subnormals, infinities and NaN included).
float half_to_float(uint16_t bits);
uint16_t float_to_half(float x);

}  // namespace msa
