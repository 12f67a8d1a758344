#include "ops/linear_packed.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "core/buffer.h"
#include "ops/linear_dnnl.h"
#include "ops/linear_kernels.h"

namespace msa {
namespace {

// Rows of one oneDNN call. 64 rows reach 217 of 232 GFLOP/s per Zen 4 core at [576 → 960], 128 rows reach 201: the
// tile of y then leaves the L2 cache. Smaller remainders are cut into powers of two so that few primitives exist.
constexpr int64_t kRowTile = 64;
constexpr int64_t kRowShare = 16;  // workers get multiples of this
// Up to here our own kernels win: they stream a block of columns once, where oneDNN strides through memory.
constexpr int64_t kFewRows = 8;

[[noreturn]] void fail(const dnnl::error& error, int64_t in, int64_t out) {
  throw Error(std::string("oneDNN cannot multiply by this matrix: ") + error.what(),
              "weight [" + std::to_string(out) + ", " + std::to_string(in) + "]", "use the format f32, or free memory");
}

Tensor dense_rows(const Tensor& x, Buffer& scratch) {
  if (x.is_dense()) return x;
  const Tensor dense = scratch.tensor(x.dtype, {x.rows(), x.dim(1)});
  const auto bytes = static_cast<size_t>(x.dense_row_bytes());
  for (int64_t t = 0; t < x.rows(); ++t) std::memcpy(dense.row<char>(t), x.row<char>(t), bytes);
  return dense;
}

}  // namespace

struct PackedMatrix::Impl {
  int64_t in;
  int64_t out;
  DType operand;
  DType sum_type;
  dnnl::memory::desc layout;
  bool column_blocks;
  Buffer packed;

  Impl(int64_t in_features, int64_t out_features, DType operand_type)
      : in(in_features),
        out(out_features),
        operand(operand_type),
        sum_type(operand_type == DType::kI8 ? DType::kI32 : DType::kF32),
        layout(preferred_layout({kRowTile, in, out, operand, sum_type, false, false})),
        column_blocks(layout == column_block_layout(in, out, operand)),
        packed(layout.get_size()) {}

  int64_t blocks() const { return (out + kColumnBlock - 1) / kColumnBlock; }
  /// `column` is a multiple of kColumnBlock.
  char* columns(int64_t column) const {
    return static_cast<char*>(packed.data()) +
           column / kColumnBlock * (static_cast<int64_t>(packed_bytes()) / blocks());
  }
  size_t packed_bytes() const { return layout.get_size(); }
  dnnl::memory::desc layout_of(int64_t n_columns) const {
    return n_columns == out ? layout : column_block_layout(in, n_columns, operand);
  }

  void pack(Context& context, const RowSource& source);
  void pack_columns(const RowSource& source, int64_t begin, int64_t end) const;
  void multiply_few(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const;

  /// A part of a product: all rows of x, columns [begin, end).
  struct Part {
    Tensor x;
    int64_t first_row;
    int64_t begin, end;
  };
  using PartBody = std::function<void(const Part&)>;
  void divide(Context& context, const Tensor& x, const PartBody& body) const;
  void run_to_sink(const Part& part, const TileSink& sink) const;
  void run_in_place(const Part& part, const Tensor& y, bool accumulate) const;
};

void PackedMatrix::Impl::pack_columns(const RowSource& source, int64_t begin, int64_t end) const {
  const SingleThreaded guard;
  Buffer rows;
  const Tensor dense = rows.tensor(operand == DType::kI8 ? DType::kI8 : DType::kF32, {end - begin, in});
  source(begin, end, dense.data);
  pack_rows(dense.data, end - begin, in, layout_of(end - begin), columns(begin));
}

void PackedMatrix::Impl::pack(Context& context, const RowSource& source) {
  if (!column_blocks) return pack_columns(source, 0, out);
  constexpr int64_t kSlab = 8 * kColumnBlock;  // bounds the plain copy
  context.pool.parallel_for((out + kSlab - 1) / kSlab, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t s = begin; s < end; ++s) pack_columns(source, s * kSlab, std::min(out, (s + 1) * kSlab));
  });
}

void PackedMatrix::Impl::multiply_few(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const {
  const BlockProductKernel kernel = block_product_kernel(operand);
  const int64_t element = traits(y.dtype).block_bytes;
  context.pool.parallel_for(blocks(), 1, [&](int64_t first, int64_t last, int) {
    std::array<float, kRowsPerPass * kColumnBlock> sums;
    std::array<const void*, kRowsPerPass> rows{};
    for (int64_t b = first; b < last; ++b) {
      const int64_t column = b * kColumnBlock;
      for (int64_t t = 0; t < x.rows(); t += kRowsPerPass) {
        const int n = static_cast<int>(std::min<int64_t>(kRowsPerPass, x.rows() - t));
        for (int r = 0; r < n; ++r) rows[static_cast<size_t>(r)] = x.row<void>(t + r);
        kernel({rows.data(), columns(column), in, sums.data(), n});
        for (int r = 0; r < n; ++r) {
          store_sums(sums.data() + r * kColumnBlock, std::min(kColumnBlock, out - column),
                     y.row<char>(t + r) + column * element, y.dtype, accumulate);
        }
      }
    }
  });
}

/// Rows are shared among the workers, or the columns where the rows are too few.
void PackedMatrix::Impl::divide(Context& context, const Tensor& x, const PartBody& body) const {
  const int64_t T = x.rows();
  if (column_blocks && T < kRowTile * context.pool.threads()) {
    context.pool.parallel_for(blocks(), 1, [&](int64_t begin, int64_t end, int) {
      body({x, 0, begin * kColumnBlock, std::min(out, end * kColumnBlock)});
    });
  } else {
    context.pool.parallel_for((T + kRowShare - 1) / kRowShare, kRowTile / kRowShare,
                              [&](int64_t begin, int64_t end, int) {
                                const int64_t first = begin * kRowShare;
                                body({x.slice_rows(first, std::min(T, end * kRowShare)), first, 0, out});
                              });
  }
}

void PackedMatrix::Impl::run_to_sink(const Part& part, const TileSink& sink) const {
  static thread_local Buffer x_scratch, y_scratch;
  const SingleThreaded guard;
  ProductShape shape{0, in, part.end - part.begin, operand, sum_type, false, column_blocks};
  for (int64_t t = 0; t < part.x.rows(); t += shape.rows) {
    shape.rows = kRowTile;
    while (shape.rows > part.x.rows() - t) shape.rows /= 2;
    const Tensor x = dense_rows(part.x.slice_rows(t, t + shape.rows), x_scratch);
    const Tensor tile = y_scratch.tensor(sum_type, {shape.rows, shape.out});
    run_product(shape, x.data, layout_of(shape.out), columns(part.begin), tile.data);
    sink(tile, part.first_row + t, part.begin);
  }
}

/// y: all rows, dense; the part has all columns.
void PackedMatrix::Impl::run_in_place(const Part& part, const Tensor& y, bool accumulate) const {
  static thread_local Buffer x_scratch;
  const SingleThreaded guard;
  ProductShape shape{0, in, out, operand, y.dtype, accumulate, column_blocks};
  for (int64_t t = 0; t < part.x.rows(); t += shape.rows) {
    shape.rows = kRowTile;
    while (shape.rows > part.x.rows() - t) shape.rows /= 2;
    const Tensor x = dense_rows(part.x.slice_rows(t, t + shape.rows), x_scratch);
    run_product(shape, x.data, layout, packed.data(), y.row<void>(part.first_row + t));
  }
}

PackedMatrix::PackedMatrix(Context& context, int64_t in, int64_t out, DType operand, const RowSource& source) {
  try {
    const SingleThreaded guard;
    impl_ = std::make_unique<Impl>(in, out, operand);
    impl_->pack(context, source);
  } catch (const dnnl::error& error) {
    fail(error, in, out);
  }
}

PackedMatrix::~PackedMatrix() = default;
PackedMatrix::PackedMatrix(PackedMatrix&&) noexcept = default;

int64_t PackedMatrix::in() const { return impl_->in; }
int64_t PackedMatrix::out() const { return impl_->out; }
DType PackedMatrix::operand() const { return impl_->operand; }

void PackedMatrix::multiply(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const {
  const Impl& m = *impl_;
  MSA_CHECK(x.dtype == m.operand && m.operand != DType::kI8);
  if (x.rows() <= kFewRows && m.column_blocks && block_product_kernel(m.operand) != nullptr) {
    return m.multiply_few(context, x, y, accumulate);
  }
  const TileSink store = [&](const Tensor& tile, int64_t row, int64_t column) {
    for (int64_t r = 0; r < tile.rows(); ++r) {
      char* to = y.row<char>(row + r) + column * traits(y.dtype).block_bytes;
      store_sums(tile.row<float>(r), tile.dim(1), to, y.dtype, accumulate);
    }
  };
  try {
    m.divide(context, x, [&](const Impl::Part& part) {
      if (y.is_dense() && part.end - part.begin == m.out)
        m.run_in_place(part, y, accumulate);
      else
        m.run_to_sink(part, store);
    });
  } catch (const dnnl::error& error) {
    fail(error, m.in, m.out);
  }
}

void PackedMatrix::multiply_tiles(Context& context, const Tensor& x, const TileSink& sink) const {
  try {
    impl_->divide(context, x, [&](const Impl::Part& part) { impl_->run_to_sink(part, sink); });
  } catch (const dnnl::error& error) {
    fail(error, impl_->in, impl_->out);
  }
}

}  // namespace msa
