// The GGUF block formats: their layout, and the scalar truth of decoding them.
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace msa {

// Blocks as the file holds them; scales are IEEE half precision bits. A file may place blocks at any address, so
// vector code loads them unaligned.
struct BlockQ8_0 {
  uint16_t scale;
  int8_t quants[32];
};

struct BlockQ4_0 {
  uint16_t scale;
  uint8_t quants[16];  // element i in the low nibble of byte i, element i + 16 in the high one; offset 8
};

struct BlockQ4_1 {
  uint16_t scale;
  uint16_t minimum;
  uint8_t quants[16];  // as Q4_0, no offset
};

struct BlockQ5_0 {
  uint16_t scale;
  uint8_t high_bits[4];  // bit i of the little-endian word is bit 4 of element i
  uint8_t quants[16];    // as Q4_0; offset 16
};

struct BlockQ4_K {
  uint16_t scale;
  uint16_t minimum;
  uint8_t scales[12];   // 8 scales and 8 minima of 6 bits, one pair for 32 elements: see q4_k_scale_min
  uint8_t quants[128];  // of each 64 elements: 32 bytes, the first 32 elements in the low nibbles
};

struct BlockQ6_K {
  uint8_t low_bits[128];  // of each 128 elements: 64 bytes, elements 0..63 in the low nibbles
  uint8_t high_bits[64];  // of each 128 elements: 32 bytes, element 32·k + i in bits 2k, 2k+1 of byte i
  int8_t scales[16];      // one for 16 elements
  uint16_t scale;
};

/// Scale and minimum (6 bits each) of the `j`-th 32 elements of a Q4_K block.
inline void q4_k_scale_min(const uint8_t scales[12], int j, uint8_t& scale, uint8_t& minimum) {
  if (j < 4) {
    scale = scales[j] & 63;
    minimum = scales[j + 4] & 63;
  } else {
    scale = static_cast<uint8_t>((scales[j + 4] & 15) | ((scales[j - 4] >> 6) << 4));
    minimum = static_cast<uint8_t>((scales[j + 4] >> 4) | ((scales[j] >> 6) << 4));
  }
}

/// row: n elements of F32, F16, BF16 or a block type, at any address → out [n]. n is a multiple of the block.
void dequantise_row(DType type, const void* row, int64_t n, float* out);

/// x [n] → row in `type`: F32, F16, BF16 or Q8_0 (the same bits as ggml's own). NaN becomes 0 in Q8_0.
void quantise_row(DType type, const float* x, int64_t n, void* row);

}  // namespace msa
