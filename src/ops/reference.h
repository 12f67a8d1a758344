// Scalar truth of every op but Linear (reference_linear.h): plain loops, sums in double.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "ops/attention.h"
#include "ops/rope.h"

namespace msa::reference {

/// Element i of row t, the row taken as flat.
inline double get(const Tensor& x, int64_t t, int64_t i) {
  return x.dtype == DType::kBF16 ? to_float(x.row<bf16>(t)[i]) : x.row<float>(t)[i];
}

inline void put(const Tensor& x, int64_t t, int64_t i, double value) {
  if (x.dtype == DType::kBF16)
    x.row<bf16>(t)[i] = to_bf16(static_cast<float>(value));
  else
    x.row<float>(t)[i] = static_cast<float>(value);
}

inline void rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& y) {
  const int64_t n = x.dim(1);
  for (int64_t t = 0; t < x.rows(); ++t) {
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) squares += get(x, t, i) * get(x, t, i);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(eps));
    for (int64_t i = 0; i < n; ++i) put(y, t, i, get(x, t, i) * scale * static_cast<double>(weight.as<float>()[i]));
  }
}

/// Calls f(t, first element) for every head of every row.
template <class F>
void for_each_head(const Tensor& x, const F& f) {
  for (int64_t t = 0; t < x.rows(); ++t) {
    for (int64_t h = 0; h < x.dim(1); ++h) f(t, h * x.dim(2));
  }
}

inline void rms_norm_heads(const Tensor& x, const Tensor& weight, float eps) {
  for_each_head(x, [&](int64_t t, int64_t at) {
    rms_norm(Tensor(x.row<float>(t) + at, DType::kF32, {1, x.dim(2)}), weight, eps,
             Tensor(x.row<float>(t) + at, DType::kF32, {1, x.dim(2)}));
  });
}

inline void l2_normalize_heads(const Tensor& x) {
  for_each_head(x, [&](int64_t t, int64_t at) {
    double squares = 0;
    for (int64_t i = at; i < at + x.dim(2); ++i) squares += get(x, t, i) * get(x, t, i);
    const double norm = std::max(std::sqrt(squares), 1e-12);
    for (int64_t i = at; i < at + x.dim(2); ++i) put(x, t, i, get(x, t, i) / norm);
  });
}

inline void rope(const RopeTable& table, std::span<const int32_t> positions, const Tensor& x) {
  const int64_t half = table.head_dim / 2;
  for_each_head(x, [&](int64_t t, int64_t at) {
    const float* cos = table.cos_sin.data() + positions[static_cast<size_t>(t)] * table.head_dim;
    const float* sin = cos + half;
    for (int64_t i = 0; i < half; ++i) {
      const double a = get(x, t, at + i), b = get(x, t, at + half + i);
      put(x, t, at + i, a * static_cast<double>(cos[i]) - b * static_cast<double>(sin[i]));
      put(x, t, at + half + i, b * static_cast<double>(cos[i]) + a * static_cast<double>(sin[i]));
    }
  });
}

inline void silu_mul(const Tensor& gate, const Tensor& up, const Tensor& out) {
  for (int64_t t = 0; t < gate.rows(); ++t) {
    for (int64_t i = 0; i < gate.dim(1); ++i) {
      const double g = get(gate, t, i);
      put(out, t, i, g / (1 + std::exp(-g)) * get(up, t, i));
    }
  }
}

inline void chunk_mean(const Tensor& x, std::span<const int64_t> starts, int chunk_tokens, const Tensor& out) {
  int64_t chunk = 0;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    for (int64_t begin = starts[s]; begin < starts[s + 1]; begin += chunk_tokens, ++chunk) {
      const int64_t end = std::min<int64_t>(begin + chunk_tokens, starts[s + 1]);
      for (int64_t i = 0; i < x.dim(1); ++i) {
        double sum = 0;
        for (int64_t t = begin; t < end; ++t) sum += get(x, t, i);
        put(out, chunk, i, sum / static_cast<double>(end - begin));
      }
    }
  }
}

inline void max_inner_product(const Tensor& queries, const Tensor& keys, const Tensor& out) {
  for (int64_t j = 0; j < keys.rows(); ++j) {
    double best = -std::numeric_limits<double>::infinity();
    for (int64_t m = 0; m < queries.rows(); ++m) {
      double product = 0;
      for (int64_t i = 0; i < keys.dim(1); ++i) product += get(queries, m, i) * get(keys, j, i);
      best = std::max(best, product);
    }
    put(out, j, 0, best);
  }
}

/// Row t of q sees every row of `prefix` and the first local.rows() - T + t + 1 rows of `local`.
inline void prefixed_attention(const Tensor& q, std::span<const KeyValueSpan> prefix, const KeyValueSpan& local,
                               const Tensor& out) {
  const int64_t d = q.dim(2), heads_per_group = q.dim(1) / local.k.dim(1);
  for (int64_t t = 0; t < q.rows(); ++t) {
    std::vector<KeyValueSpan> spans(prefix.begin(), prefix.end());
    const int64_t visible = local.k.rows() - q.rows() + t + 1;
    spans.push_back({local.k.slice_rows(0, visible), local.v.slice_rows(0, visible)});
    for (int64_t h = 0; h < q.dim(1); ++h) {
      const int64_t from = h / heads_per_group * d, to = h * d;
      std::vector<double> scores;
      for (const KeyValueSpan& span : spans) {
        for (int64_t s = 0; s < span.k.rows(); ++s) {
          double score = 0;
          for (int64_t i = 0; i < d; ++i) score += get(q, t, to + i) * get(span.k, s, from + i);
          scores.push_back(score / std::sqrt(static_cast<double>(d)));
        }
      }
      const double top = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      std::vector<double> mean(static_cast<size_t>(d));
      size_t at = 0;
      for (const KeyValueSpan& span : spans) {
        for (int64_t s = 0; s < span.k.rows(); ++s, ++at) {
          const double weight = std::exp(scores[at] - top);
          sum += weight;
          for (int64_t i = 0; i < d; ++i) mean[static_cast<size_t>(i)] += weight * get(span.v, s, from + i);
        }
      }
      for (int64_t i = 0; i < d; ++i) put(out, t, to + i, mean[static_cast<size_t>(i)] / sum);
    }
  }
}

inline void packed_causal_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const int64_t> starts,
                                    const Tensor& out) {
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const int64_t begin = starts[s], end = starts[s + 1];
    prefixed_attention(q.slice_rows(begin, end), {}, {k.slice_rows(begin, end), v.slice_rows(begin, end)},
                       out.slice_rows(begin, end));
  }
}

}  // namespace msa::reference
