// Dot products of quantised weights and activations, one kernel per instruction set.
#pragma once
#include <cstdint>

namespace msa {

inline constexpr int64_t kPanelRows = 16;    // outputs of a panel
inline constexpr int64_t kQuantBlock = 32;   // weights, or activations, that share a scale
inline constexpr int kQuantRowsPerPass = 4;  // rows of x that one pass over a panel serves

/// 32 activations: x[i] ≈ scale · quants[i].
struct ActivationBlock {
  int8_t quants[32];
  float scale;
  float scaled_sum;      // scale · Σ quants: what a weight's minimum is multiplied with
  int32_t minus_offset;  // -128 · Σ quants: undoes the offset of bytes
  int32_t unused;
};

/// 32 weights of each of 16 outputs. Byte 4·o + i of line j belongs to output o. Scales lie beside their weights: one
/// stream of memory runs at 26 GB/s per Zen 4 core, scales in an array of their own at 10 GB/s.
struct NibblePanelBlock {
  uint16_t scales[kPanelRows];  // halves; weight = scale · nibble + minimum
  uint16_t minima[kPanelRows];
  uint8_t quants[4][64];  // element 4·j + i low, element 16 + 4·j + i high
};
struct BytePanelBlock {
  uint16_t scales[kPanelRows];  // halves; weight = scale · (byte - 128)
  uint8_t quants[8][64];        // element 4·j + i
};

struct PanelProduct {
  const void* panel;                // [blocks] NibblePanelBlock or BytePanelBlock
  const ActivationBlock* const* x;  // [rows] pointers to [blocks]
  int64_t blocks;
  float* sums;  // [rows, 16]
  int rows;     // 1..kQuantRowsPerPass
};

using PanelKernel = void (*)(const PanelProduct&);
/// The best one for this processor.
PanelKernel nibble_panel_kernel();
PanelKernel byte_panel_kernel();

/// Every kernel that this processor can run, for tests; null-terminated.
struct PanelKernels {
  const char* name;
  PanelKernel nibbles;
  PanelKernel bytes;
};
const PanelKernels* available_panel_kernels();

/// x [32 · blocks] → out [blocks]. A block with an infinity or NaN gets a NaN scale, so that it shows in the result.
void quantise_activations(const float* x, int64_t blocks, ActivationBlock* out);

}  // namespace msa
