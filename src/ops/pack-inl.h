// Brings queries, keys and values into the layouts that gemm-inl.h multiplies (steps, panels).
#if defined(MSA_OPS_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MSA_OPS_PACK_INL_H_
#undef MSA_OPS_PACK_INL_H_
#else
#define MSA_OPS_PACK_INL_H_
#endif

#include <algorithm>

#include "ops/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace msa::HWY_NAMESPACE {

/// to [n steps, or (n + 1) / 2 with a zero behind an odd n] = from [n] · scale.
template <bool kPairs, class In>
HWY_INLINE void pack_steps(const In* from, size_t n, float scale, float* to) {
  if constexpr (kPairs) {
    auto* pairs = reinterpret_cast<bf16*>(to);
    for_each_vector(n, [&](auto d, size_t i) HWY_ATTR {
      store_float(d, hn::Mul(load_float(d, from + i), hn::Set(d, scale)), pairs + i);
    });
    if (n % 2) pairs[n] = bf16{0};
  } else {
    for_each_vector(n, [&](auto d, size_t i)
                           HWY_ATTR { hn::StoreU(hn::Mul(load_float(d, from + i), hn::Set(d, scale)), d, to + i); });
  }
}

#if HWY_TARGET == HWY_SCALAR
constexpr size_t kRowsAtOnce = 1;
#else
constexpr size_t kRowsAtOnce = 4;
#endif

/// to[i * stride + j] = rows[j * row_stride + i] for i < n, j < kRowsAtOnce. 32-bit elements of any kind.
HWY_INLINE void transpose_rows(const float* rows, [[maybe_unused]] size_t row_stride, size_t n, float* to,
                               size_t stride) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<uint64_t, decltype(d)> d64;
  for (; i + 4 <= n; i += 4) {
    const float* from = rows + i;
    const auto r0 = hn::LoadU(d, from), r1 = hn::LoadU(d, from + row_stride);
    const auto r2 = hn::LoadU(d, from + 2 * row_stride), r3 = hn::LoadU(d, from + 3 * row_stride);
    const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));
    const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
    const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));
    const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, low01, low23)), d, to + i * stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23)), d, to + (i + 1) * stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, high01, high23)), d, to + (i + 2) * stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23)), d, to + (i + 3) * stride);
  }
#endif
  for (; i < n; ++i) {
    for (size_t j = 0; j < kRowsAtOnce; ++j) to[i * stride + j] = rows[j * row_stride + i];
  }
}

/// Collects the keys and values of one key/value head, one token after another.
template <bool kPairs>
class KeyPacker {
 public:
  struct Target {
    float* keys;    // [panels of keys, steps of dim, panel_columns()]
    float* values;  // [panels of dim, steps of keys, panel_columns()]
    float* rows;    // [6, dim rounded up to panels] rows under way
  };

  KeyPacker(size_t dim, size_t keys, const Target& target)
      : dim_(dim),
        dim_steps_(kPairs ? (dim + 1) / 2 : dim),
        padded_dim_((dim + panel_columns() - 1) / panel_columns() * panel_columns()),
        padded_keys_((keys + panel_columns() - 1) / panel_columns() * panel_columns()),
        target_(target) {
    std::fill_n(target_.rows, 6 * padded_dim_, 0.0f);
  }

  /// The key and the value of the next token, [dim] each.
  template <class In>
  HWY_INLINE void add(const In* key, const In* value) {
    pack_steps<kPairs>(key, dim_, 1.0f, row(count_ % kRowsAtOnce));
    if constexpr (kPairs)
      pack_steps<true>(value, dim_, 1.0f, row(4 + count_ % 2));
    else
      pack_steps<false>(value, dim_, 1.0f, row(4));
    flush();
  }

  /// Fills the last panel of keys with zeros.
  void finish() {
    while (count_ < padded_keys_) {
      std::fill_n(row(count_ % kRowsAtOnce), dim_steps_, 0.0f);
      std::fill_n(value_row(), dim_steps_, 0.0f);
      flush();
    }
  }

 private:
  float* value_row() { return row(kPairs ? 4 + count_ % 2 : 4); }
  float* row(size_t i) { return target_.rows + i * padded_dim_; }

  /// Moves the rows of token count_ on as soon as their neighbours are there.
  HWY_INLINE void flush() {
    if (count_ % kRowsAtOnce == kRowsAtOnce - 1) {
      const size_t first = count_ + 1 - kRowsAtOnce, column = first % panel_columns();
      float* to = target_.keys + (first - column) * dim_steps_ + column;
      transpose_rows(row(0), padded_dim_, dim_steps_, to, panel_columns());
    }
    if constexpr (kPairs) {
      if (count_ % 2 == 1) add_value_pair();
    } else {
      add_value_row();
    }
    ++count_;
  }

  HWY_INLINE void add_value_row() {
    const FloatTag d;
    for (size_t c = 0; c < padded_dim_; c += hn::Lanes(d)) {
      const size_t column = c % panel_columns();
      hn::StoreU(hn::LoadU(d, row(4) + c), d,
                 target_.values + (c - column) * padded_keys_ + count_ * panel_columns() + column);
    }
  }

  HWY_INLINE void add_value_pair() {
    const FloatTag d;
    const hn::Rebind<uint32_t, FloatTag> d32;
    const hn::Rebind<uint16_t, FloatTag> d16;
    const auto* even = reinterpret_cast<const uint16_t*>(row(4));
    const auto* odd = reinterpret_cast<const uint16_t*>(row(5));
    for (size_t c = 0; c < padded_dim_; c += hn::Lanes(d)) {
      const size_t column = c % panel_columns();
      const auto low = hn::PromoteTo(d32, hn::LoadU(d16, even + c));
      const auto high = hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, odd + c)));
      hn::StoreU(hn::BitCast(d, hn::Or(low, high)), d,
                 target_.values + (c - column) * (padded_keys_ / 2) + count_ / 2 * panel_columns() + column);
    }
  }

  size_t dim_;
  size_t dim_steps_;
  size_t padded_dim_;
  size_t padded_keys_;
  Target target_;
  size_t count_ = 0;
};

}  // namespace msa::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
