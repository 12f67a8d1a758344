#include "ops/linear_quantised.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "core/quant.h"
#include "ops/linear_kernels.h"
#include "ops/linear_quantised_kernels.h"

namespace msa {
namespace {

/// 32 weights of one row on their way into a panel.
struct NibbleBlock {
  uint16_t scale;
  uint16_t minimum;
  uint8_t quants[16];  // element i low, element i + 16 high
};

bool has_nibbles(DType type) { return type == DType::kQ4_0 || type == DType::kQ4_1 || type == DType::kQ4_K; }

template <class Block>
Block load_block(const void* row, int64_t index) {
  Block block;  // a file places blocks at any address
  std::memcpy(&block, static_cast<const char*>(row) + index * static_cast<int64_t>(sizeof(Block)), sizeof(Block));
  return block;
}

NibbleBlock from_q4_k(const BlockQ4_K& k, int j) {
  uint8_t scale = 0, minimum = 0;
  q4_k_scale_min(k.scales, j, scale, minimum);
  NibbleBlock b;
  b.scale = float_to_half(half_to_float(k.scale) * static_cast<float>(scale));
  b.minimum = float_to_half(-half_to_float(k.minimum) * static_cast<float>(minimum));
  const uint8_t* q = k.quants + j / 2 * 32;
  const int shift = j % 2 * 4;
  for (int i = 0; i < 16; ++i) {
    b.quants[i] = static_cast<uint8_t>(((q[i] >> shift) & 15) | (((q[i + 16] >> shift) & 15) << 4));
  }
  return b;
}

/// Elements [32 · b, 32 · b + 32) of a row of `type`.
NibbleBlock nibble_block(DType type, const void* row, int64_t b) {
  if (type == DType::kQ4_1) return load_block<NibbleBlock>(row, b);
  if (type == DType::kQ4_K) return from_q4_k(load_block<BlockQ4_K>(row, b / 8), static_cast<int>(b % 8));
  MSA_CHECK(type == DType::kQ4_0);
  const auto q = load_block<BlockQ4_0>(row, b);
  NibbleBlock block;
  block.scale = q.scale;
  block.minimum = float_to_half(-8.0f * half_to_float(q.scale));
  std::memcpy(block.quants, q.quants, sizeof(q.quants));
  return block;
}

/// A row of Q5_0 as Q8_0: the same scales and integers.
void widen_q5_0(const void* row, int64_t blocks, BlockQ8_0* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    const auto q = load_block<BlockQ5_0>(row, b);
    uint32_t high = 0;
    for (int i = 0; i < 4; ++i) high |= static_cast<uint32_t>(q.high_bits[i]) << (8 * i);
    out[b].scale = q.scale;
    for (int i = 0; i < 32; ++i) {
      const int low = i < 16 ? q.quants[i] & 15 : q.quants[i - 16] >> 4;
      out[b].quants[i] = static_cast<int8_t>((low | static_cast<int>((high >> i) & 1) << 4) - 16);
    }
  }
}

/// A row of any type as Q8_0. `floats` is scratch [n].
void row_to_q8_0(DType type, const void* row, int64_t n, std::vector<float>& floats, BlockQ8_0* out) {
  if (type == DType::kQ8_0) {
    std::memcpy(out, row, static_cast<size_t>(n / kQuantBlock) * sizeof(BlockQ8_0));
  } else if (type == DType::kQ5_0) {
    widen_q5_0(row, n / kQuantBlock, out);
  } else {
    floats.resize(static_cast<size_t>(n));
    dequantise_row(type, row, n, floats.data());
    quantise_row(DType::kQ8_0, floats.data(), n, out);
  }
}

/// Places 32 weights of output `o` of the panel.
void put(const NibbleBlock& from, int64_t o, NibblePanelBlock& to) {
  to.scales[o] = from.scale;
  to.minima[o] = from.minimum;
  for (int64_t j = 0; j < 4; ++j) std::memcpy(to.quants[j] + 4 * o, from.quants + 4 * j, 4);
}

void put(const BlockQ8_0& from, int64_t o, BytePanelBlock& to) {
  to.scales[o] = from.scale;
  for (int64_t j = 0; j < kQuantBlock / 4; ++j) {
    uint32_t four = 0;
    std::memcpy(&four, from.quants + 4 * j, 4);
    four ^= 0x80808080u;
    std::memcpy(to.quants[j] + 4 * o, &four, 4);
  }
}

}  // namespace

QuantisedMatrix::QuantisedMatrix(Context& context, const Tensor& weight, bool as_q8_0)
    : in_(weight.dim(1)), out_(weight.dim(0)), nibbles_(!as_q8_0 && has_nibbles(weight.dtype)) {
  MSA_CHECK(fits(weight));
  panel_bytes_ = in_ / kQuantBlock * static_cast<int64_t>(nibbles_ ? sizeof(NibblePanelBlock) : sizeof(BytePanelBlock));
  packed_.reserve(static_cast<size_t>(bytes()));
  context.pool.parallel_for(panels(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) pack_panel(weight, p);
  });
}

int64_t QuantisedMatrix::panels() const { return (out_ + kPanelRows - 1) / kPanelRows; }

void QuantisedMatrix::pack_panel(const Tensor& weight, int64_t panel) const {
  const int64_t blocks = in_ / kQuantBlock;
  void* memory = static_cast<char*>(packed_.data()) + panel * panel_bytes_;
  std::memset(memory, 0, static_cast<size_t>(panel_bytes_));  // outputs beyond the last have scale 0
  std::vector<float> floats;
  std::vector<BlockQ8_0> bytes(nibbles_ ? 0 : static_cast<size_t>(blocks));
  for (int64_t o = 0; o < std::min(kPanelRows, out_ - panel * kPanelRows); ++o) {
    const void* row = weight.row<void>(panel * kPanelRows + o);
    if (!nibbles_) row_to_q8_0(weight.dtype, row, in_, floats, bytes.data());
    for (int64_t b = 0; b < blocks; ++b) {
      if (nibbles_) {
        put(nibble_block(weight.dtype, row, b), o, static_cast<NibblePanelBlock*>(memory)[b]);
      } else {
        put(bytes[static_cast<size_t>(b)], o, static_cast<BytePanelBlock*>(memory)[b]);
      }
    }
  }
}

void QuantisedMatrix::multiply(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const {
  const int64_t blocks = in_ / kQuantBlock;
  const int64_t T = x.rows();
  Buffer& scratch = context.scratch[0];
  const int64_t row_bytes = blocks * static_cast<int64_t>(sizeof(ActivationBlock));
  scratch.reserve(static_cast<size_t>(T * row_bytes + in_ * 4));
  auto* activations = static_cast<ActivationBlock*>(scratch.data());
  float* floats = reinterpret_cast<float*>(activations + T * blocks);
  for (int64_t t = 0; t < T; ++t) {
    const float* row = x.row<float>(t);
    if (x.dtype == DType::kBF16) {
      convert(row, DType::kBF16, floats, DType::kF32, in_);
      row = floats;
    }
    quantise_activations(row, blocks, activations + t * blocks);
  }

  const PanelKernel kernel = nibbles_ ? nibble_panel_kernel() : byte_panel_kernel();
  const int64_t y_bytes = traits(y.dtype).block_bytes;
  constexpr int64_t kPanelsPerPiece = 4;  // some 20 KiB: less is not worth waking a worker
  context.pool.parallel_for(panels(), kPanelsPerPiece, [&](int64_t begin, int64_t end, int) {
    std::array<float, kQuantRowsPerPass * kPanelRows> sums;
    std::array<const ActivationBlock*, kQuantRowsPerPass> rows{};
    for (int64_t p = begin; p < end; ++p) {
      const void* panel = static_cast<const char*>(packed_.data()) + p * panel_bytes_;
      const int64_t column = p * kPanelRows;
      for (int64_t t = 0; t < T; t += kQuantRowsPerPass) {
        const int n = static_cast<int>(std::min<int64_t>(kQuantRowsPerPass, T - t));
        for (int r = 0; r < n; ++r) rows[static_cast<size_t>(r)] = activations + (t + r) * blocks;
        kernel({panel, rows.data(), blocks, sums.data(), n});
        for (int r = 0; r < n; ++r) {
          store_sums(sums.data() + r * kPanelRows, std::min(kPanelRows, out_ - column),
                     y.row<char>(t + r) + column * y_bytes, y.dtype, accumulate);
        }
      }
    }
  });
}

}  // namespace msa
