// Scalar truth of Linear, in double precision.
#pragma once
#include <vector>

#include "core/quant.h"
#include "core/tensor.h"

namespace msa {

inline double reference_element(const Tensor& x, int64_t row, int64_t column) {
  return x.dtype == DType::kBF16 ? to_float(x.row<bf16>(row)[column]) : x.row<float>(row)[column];
}

/// x [T, in] F32|BF16, weight [out, in] of any type → [T, out].
inline std::vector<double> reference_linear(const Tensor& x, const Tensor& weight) {
  const int64_t in = weight.dim(1);
  const int64_t out = weight.dim(0);
  std::vector<double> rows(static_cast<size_t>(x.rows() * in));
  for (int64_t t = 0; t < x.rows(); ++t) {
    for (int64_t i = 0; i < in; ++i) rows[static_cast<size_t>(t * in + i)] = reference_element(x, t, i);
  }
  std::vector<double> y(static_cast<size_t>(x.rows() * out));
  std::vector<float> w(static_cast<size_t>(in));
  for (int64_t o = 0; o < out; ++o) {
    dequantise_row(weight.dtype, weight.row<void>(o), in, w.data());
    for (int64_t t = 0; t < x.rows(); ++t) {
      double sum = 0;
      for (int64_t i = 0; i < in; ++i)
        sum += rows[static_cast<size_t>(t * in + i)] * static_cast<double>(w[static_cast<size_t>(i)]);
      y[static_cast<size_t>(t * out + o)] = sum;
    }
  }
  return y;
}

}  // namespace msa
