// The one order of summation of all backends.
#pragma once
#include <algorithm>
#include <cstddef>
#include <span>

namespace msa {

/// Largest number of floats that one call sums: the sum then stays in the first-level cache.
inline constexpr size_t kRankSumFloats = 2048;

/// summands [n_ranks][n], n <= kRankSumFloats → sum [n] = ((x_0 + x_1) + x_2) + …; `sum` overlaps no summand.
inline void sum_in_rank_order(std::span<const float* const> summands, size_t n, float* sum) {
  std::copy_n(summands[0], n, sum);
  for (const float* summand : summands.subspan(1)) {
    for (size_t i = 0; i < n; ++i) sum[i] += summand[i];
  }
}

}  // namespace msa
