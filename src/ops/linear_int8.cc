#include "ops/linear_int8.h"

#include <algorithm>
#include <array>

#include "core/quant.h"
#include "ops/linear_kernels.h"

namespace msa {
namespace {

constexpr int32_t kOffset = 128;

/// One row of x in unsigned bytes.
void quantise_x(const Tensor& x, int64_t t, std::vector<float>& floats, uint8_t* out, float& scale) {
  const int64_t in = x.dim(1);
  const float* row = x.row<float>(t);
  if (x.dtype == DType::kBF16) {
    floats.resize(static_cast<size_t>(in));
    convert(row, DType::kBF16, floats.data(), DType::kF32, in);
    row = floats.data();
  }
  scale = quantise_to_bytes(row, in, kOffset, out);
}

}  // namespace

Int8Matrix::Int8Matrix(Context& context, const Tensor& weight)
    : scales_(static_cast<size_t>(weight.dim(0))),
      offsets_(static_cast<size_t>(weight.dim(0))),
      packed_(context, weight.dim(1), weight.dim(0), DType::kI8, [&](int64_t begin, int64_t end, void* rows) {
        const int64_t in = weight.dim(1);
        std::vector<float> floats(static_cast<size_t>(in));
        for (int64_t o = begin; o < end; ++o) {
          int8_t* q = static_cast<int8_t*>(rows) + (o - begin) * in;
          dequantise_row(weight.dtype, weight.row<void>(o), in, floats.data());
          scales_[static_cast<size_t>(o)] = quantise_to_bytes(floats.data(), in, 0, reinterpret_cast<uint8_t*>(q));
          int32_t sum = 0;
          for (int64_t i = 0; i < in; ++i) sum += q[i];
          offsets_[static_cast<size_t>(o)] = kOffset * sum;
        }
      }) {}

void Int8Matrix::multiply(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const {
  const int64_t T = x.rows();
  const Tensor bytes = context.scratch[0].tensor(DType::kI8, {T, x.dim(1)});
  const Tensor x_scales = context.scratch[1].tensor(DType::kF32, {T});
  constexpr int64_t kRowsPerPiece = 4;
  context.pool.parallel_for(T, kRowsPerPiece, [&](int64_t begin, int64_t end, int) {
    std::vector<float> floats;
    for (int64_t t = begin; t < end; ++t) quantise_x(x, t, floats, bytes.row<uint8_t>(t), x_scales.as<float>()[t]);
  });
  packed_.multiply_tiles(context, bytes, [&](const Tensor& tile, int64_t row, int64_t column) {
    constexpr int64_t kChunk = 256;
    std::array<float, kChunk> floats;
    for (int64_t r = 0; r < tile.rows(); ++r) {
      const float x_scale = x_scales.as<float>()[row + r];
      for (int64_t c = 0; c < tile.dim(1); c += kChunk) {
        const int64_t n = std::min(kChunk, tile.dim(1) - c);
        const auto o = static_cast<size_t>(column + c);
        scale_integers({tile.row<int32_t>(r) + c, offsets_.data() + o, scales_.data() + o, x_scale, n}, floats.data());
        store_sums(floats.data(), n, y.row<char>(row + r) + (column + c) * traits(y.dtype).block_bytes, y.dtype,
                   accumulate);
      }
    }
  });
}

}  // namespace msa
