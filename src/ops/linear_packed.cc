#include "ops/linear_packed.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>

#include "core/cpu.h"
#include "core/quant.h"
#include "ops/linear_kernels.h"

namespace msa {
namespace {

using dnnl::memory;

// Rows of one oneDNN call. 64 rows reach 217 of 232 GFLOP/s per Zen 4 core at [576 → 960], 128 rows reach 201: the
// tile of y then leaves the L2 cache. Smaller remainders are cut into powers of two so that few primitives exist.
constexpr int64_t kRowTile = 64;
constexpr int64_t kRowShare = 16;  // workers get multiples of this
// Up to here our own kernels win: they stream a block of columns once, where oneDNN strides through memory.
constexpr int64_t kFewRows = 8;

/// oneDNN sizes its work for OpenMP's threads; the cores belong to the pool, so every call here sees one thread.
class SingleThreaded {
 public:
  SingleThreaded() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleThreaded() { omp_set_num_threads(before_); }
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  int before_;
};

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

struct ThreadState {
  dnnl::stream stream{cpu_engine()};
  Buffer scratchpad;
  Buffer x, y;  // dense copies of a tile
};

ThreadState& thread_state() {
  static thread_local ThreadState state;
  return state;
}

[[noreturn]] void fail(const dnnl::error& error, int64_t in, int64_t out) {
  throw Error(std::string("oneDNN cannot multiply by this matrix: ") + error.what(),
              "weight [" + std::to_string(out) + ", " + std::to_string(in) + "]", "use the format f32, or free memory");
}

memory::data_type dnnl_type(DType type) {
  return type == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
}

/// What distinguishes two primitives; all layers of a model share those of equal shape. x and y are dense: with strided
/// rows oneDNN 2.6 falls back to its scalar reference, a thousand times slower.
struct ProductShape {
  int64_t rows, in, out;
  DType operand, result;
  bool accumulate, column_blocks;
  auto operator<=>(const ProductShape&) const = default;
};

memory::desc column_block_layout(int64_t in, int64_t out, DType operand) {
  return {{in, out},
          dnnl_type(operand),
          operand == DType::kBF16 ? memory::format_tag::BA16a64b2a : memory::format_tag::BA16a64b};
}

dnnl::matmul::primitive_desc describe(const ProductShape& s, const memory::desc& weights) {
  const memory::desc x({s.rows, s.in}, dnnl_type(s.operand), memory::format_tag::ab);
  const memory::desc y({s.rows, s.out}, dnnl_type(s.result), memory::format_tag::ab);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (s.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  return {dnnl::matmul::desc(x, weights, y), attributes, cpu_engine()};
}

/// A primitive and what its execution needs.
struct Product {
  explicit Product(const dnnl::matmul::primitive_desc& d)
      : primitive(d), x(d.src_desc()), weights(d.weights_desc()), y(d.dst_desc()), scratchpad(d.scratchpad_desc()) {}
  dnnl::matmul primitive;
  memory::desc x, weights, y, scratchpad;
};

/// Making a primitive costs 200..500 us, finding one 0.1 us. Full, the cache starts afresh: a program uses few shapes.
class ProductCache {
 public:
  std::shared_ptr<const Product> get(const ProductShape& shape, const memory::desc& weights) {
    {
      std::scoped_lock lock(mutex_);
      const auto found = products_.find(shape);
      if (found != products_.end()) return found->second;
    }
    auto product = std::make_shared<const Product>(describe(shape, weights));
    std::scoped_lock lock(mutex_);
    if (products_.size() >= kMost) products_.clear();
    return products_.emplace(shape, std::move(product)).first->second;
  }

  static ProductCache& global() {
    static ProductCache cache;
    return cache;
  }

 private:
  static constexpr size_t kMost = 512;
  std::mutex mutex_;
  std::map<ProductShape, std::shared_ptr<const Product>> products_;
};

Tensor dense_rows(const Tensor& x, Buffer& scratch) {
  if (x.is_dense()) return x;
  const Tensor dense = scratch.tensor(x.dtype, {x.rows(), x.dim(1)});
  const auto bytes = static_cast<size_t>(x.dense_row_bytes());
  for (int64_t t = 0; t < x.rows(); ++t) std::memcpy(dense.row<char>(t), x.row<char>(t), bytes);
  return dense;
}

}  // namespace

struct PackedMatrix::Impl {
  int64_t in = 0;
  int64_t out = 0;
  DType operand = DType::kF32;
  memory::desc layout;
  bool column_blocks = false;  // the layout of linear_kernels.h: ranges of columns can be cut out of it
  Buffer packed;

  int64_t column_block_bytes() const {
    const int64_t k_block = operand == DType::kBF16 ? 32 : 16;
    return (in + k_block - 1) / k_block * k_block * kColumnBlock * traits(operand).block_bytes;
  }
  /// `column` is a multiple of kColumnBlock, or 0.
  char* columns(int64_t column) const {
    return static_cast<char*>(packed.data()) + column / kColumnBlock * column_block_bytes();
  }
  memory::desc layout_of(int64_t n_columns) const {
    return n_columns == out ? layout : column_block_layout(in, n_columns, operand);
  }

  void choose_layout();
  void pack(Context& context, const Tensor& weight, bool round_to_bf16);
  void pack_columns(const Tensor& weight, int64_t begin, int64_t end, bool round_to_bf16) const;
  void multiply_few(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const;
  void multiply_tiles(const Tensor& x, const Tensor& y, int64_t begin, int64_t end, bool accumulate) const;
  void run(const ProductShape& shape, const Tensor& x, int64_t column, const Tensor& y) const;
};

void PackedMatrix::Impl::choose_layout() {
  const memory::desc any({in, out}, dnnl_type(operand), memory::format_tag::any);
  const ProductShape usual{kRowTile, in, out, operand, DType::kF32, false, false};
  layout = describe(usual, any).weights_desc();
  column_blocks = layout == column_block_layout(in, out, operand);
}

void PackedMatrix::Impl::pack_columns(const Tensor& weight, int64_t begin, int64_t end, bool round_to_bf16) const {
  const SingleThreaded guard;
  Buffer rows;
  const Tensor dense = rows.tensor(DType::kF32, {end - begin, in});
  for (int64_t r = begin; r < end; ++r) {
    float* row = dense.row<float>(r - begin);
    dequantise_row(weight.dtype, weight.row<void>(r), in, row);
    if (round_to_bf16) {
      for (int64_t i = 0; i < in; ++i) row[i] = to_float(to_bf16(row[i]));
    }
  }
  memory from({{in, end - begin}, memory::data_type::f32, memory::format_tag::ba}, cpu_engine(), dense.data);
  memory to(layout_of(end - begin), cpu_engine(), columns(begin));
  ThreadState& state = thread_state();
  dnnl::reorder(from, to).execute(state.stream, from, to);
  state.stream.wait();
}

void PackedMatrix::Impl::pack(Context& context, const Tensor& weight, bool round_to_bf16) {
  packed.reserve(layout.get_size());
  if (!column_blocks) return pack_columns(weight, 0, out, round_to_bf16);
  constexpr int64_t kSlab = 8 * kColumnBlock;  // bounds the float copy
  context.pool.parallel_for((out + kSlab - 1) / kSlab, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t s = begin; s < end; ++s) {
      pack_columns(weight, s * kSlab, std::min(out, (s + 1) * kSlab), round_to_bf16);
    }
  });
}

void PackedMatrix::Impl::multiply_few(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const {
  const BlockProductKernel kernel = block_product_kernel(operand);
  const int64_t blocks = (out + kColumnBlock - 1) / kColumnBlock;
  const int64_t element = traits(y.dtype).block_bytes;
  context.pool.parallel_for(blocks, 1, [&](int64_t first, int64_t last, int) {
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

/// Columns [begin, end) of y for all rows of x.
void PackedMatrix::Impl::multiply_tiles(const Tensor& x, const Tensor& y, int64_t begin, int64_t end,
                                        bool accumulate) const {
  const SingleThreaded guard;
  const int64_t n = end - begin;
  const bool direct = n == out && y.is_dense();
  ProductShape shape{0, in, n, operand, direct ? y.dtype : DType::kF32, direct && accumulate, column_blocks};
  const int64_t y_offset = begin * traits(y.dtype).block_bytes;
  ThreadState& state = thread_state();
  for (int64_t t = 0; t < x.rows(); t += shape.rows) {
    shape.rows = kRowTile;
    while (shape.rows > x.rows() - t) shape.rows /= 2;
    const Tensor x_rows = dense_rows(x.slice_rows(t, t + shape.rows), state.x);
    const Tensor y_rows = direct ? y.slice_rows(t, t + shape.rows) : state.y.tensor(DType::kF32, {shape.rows, n});
    run(shape, x_rows, begin, y_rows);
    for (int64_t r = 0; !direct && r < shape.rows; ++r) {
      store_sums(y_rows.row<float>(r), n, y.row<char>(t + r) + y_offset, y.dtype, accumulate);
    }
  }
}

/// x and y dense.
void PackedMatrix::Impl::run(const ProductShape& shape, const Tensor& x, int64_t column, const Tensor& y) const {
  ThreadState& state = thread_state();
  const auto product = ProductCache::global().get(shape, layout_of(shape.out));
  state.scratchpad.reserve(product->scratchpad.get_size());
  product->primitive.execute(
      state.stream, {{DNNL_ARG_SRC, memory(product->x, cpu_engine(), x.data)},
                     {DNNL_ARG_WEIGHTS, memory(product->weights, cpu_engine(), columns(column))},
                     {DNNL_ARG_DST, memory(product->y, cpu_engine(), y.data)},
                     {DNNL_ARG_SCRATCHPAD, memory(product->scratchpad, cpu_engine(), state.scratchpad.data())}});
  state.stream.wait();
}

PackedMatrix::PackedMatrix(Context& context, const Tensor& weight, bool bf16) : impl_(std::make_unique<Impl>()) {
  impl_->in = weight.dim(1);
  impl_->out = weight.dim(0);
  impl_->operand = bf16 && cpu_features().avx512 ? DType::kBF16 : DType::kF32;
  try {
    const SingleThreaded guard;
    impl_->choose_layout();
    impl_->pack(context, weight, bf16 && impl_->operand == DType::kF32);
  } catch (const dnnl::error& error) {
    fail(error, impl_->in, impl_->out);
  }
}

PackedMatrix::~PackedMatrix() = default;
PackedMatrix::PackedMatrix(PackedMatrix&&) noexcept = default;

DType PackedMatrix::operand() const { return impl_->operand; }

void PackedMatrix::multiply(Context& context, const Tensor& x, const Tensor& y, bool accumulate) const {
  const Impl& m = *impl_;
  const int64_t T = x.rows();
  if (T <= kFewRows && m.column_blocks && block_product_kernel(m.operand) != nullptr) {
    return m.multiply_few(context, x, y, accumulate);
  }
  try {
    if (m.column_blocks && T < kRowTile * context.pool.threads()) {  // too few rows to share: share the columns
      const int64_t blocks = (m.out + kColumnBlock - 1) / kColumnBlock;
      context.pool.parallel_for(blocks, 1, [&](int64_t begin, int64_t end, int) {
        m.multiply_tiles(x, y, begin * kColumnBlock, std::min(m.out, end * kColumnBlock), accumulate);
      });
    } else {
      const int64_t shares = (T + kRowShare - 1) / kRowShare;
      context.pool.parallel_for(shares, kRowTile / kRowShare, [&](int64_t begin, int64_t end, int) {
        const int64_t first = begin * kRowShare;
        const int64_t last = std::min(T, end * kRowShare);
        m.multiply_tiles(x.slice_rows(first, last), y.slice_rows(first, last), 0, m.out, accumulate);
      });
    }
  } catch (const dnnl::error& error) {
    fail(error, m.in, m.out);
  }
}

}  // namespace msa
