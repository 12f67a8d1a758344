#include "ops/linear_dnnl.h"

#include <map>
#include <memory>
#include <mutex>

#include "core/buffer.h"

namespace msa {
namespace {

using dnnl::memory;

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& thread_stream() {
  static thread_local dnnl::stream stream(cpu_engine());
  return stream;
}

memory::data_type dnnl_type(DType type) {
  switch (type) {
    case DType::kF32: return memory::data_type::f32;
    case DType::kBF16: return memory::data_type::bf16;
    case DType::kI8: return memory::data_type::s8;
    default: MSA_CHECK(type == DType::kI32); return memory::data_type::s32;
  }
}

dnnl::matmul::primitive_desc describe(const ProductShape& s, const memory::desc& weights) {
  const auto x_type = s.operand == DType::kI8 ? memory::data_type::u8 : dnnl_type(s.operand);
  const memory::desc x({s.rows, s.in}, x_type, memory::format_tag::ab);
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

memory view(const memory::desc& desc, const void* data) { return {desc, cpu_engine(), const_cast<void*>(data)}; }

}  // namespace

memory::desc column_block_layout(int64_t in, int64_t out, DType operand) {
  const auto tag = operand == DType::kI8     ? memory::format_tag::BA16a64b4a
                   : operand == DType::kBF16 ? memory::format_tag::BA16a64b2a
                                             : memory::format_tag::BA16a64b;
  return {{in, out}, dnnl_type(operand), tag};
}

memory::desc preferred_layout(const ProductShape& shape) {
  const memory::desc any({shape.in, shape.out}, dnnl_type(shape.operand), memory::format_tag::any);
  return describe(shape, any).weights_desc();
}

void run_product(const ProductShape& shape, const void* x, const memory::desc& layout, const void* packed, void* y) {
  static thread_local Buffer scratchpad;
  const auto product = ProductCache::global().get(shape, layout);
  scratchpad.reserve(product->scratchpad.get_size());
  product->primitive.execute(thread_stream(), {{DNNL_ARG_SRC, view(product->x, x)},
                                               {DNNL_ARG_WEIGHTS, view(product->weights, packed)},
                                               {DNNL_ARG_DST, view(product->y, y)},
                                               {DNNL_ARG_SCRATCHPAD, view(product->scratchpad, scratchpad.data())}});
  thread_stream().wait();
}

void pack_rows(const void* rows, int64_t n, int64_t in, const memory::desc& layout, void* packed) {
  const auto type = layout.data_type() == memory::data_type::s8 ? memory::data_type::s8 : memory::data_type::f32;
  memory from = view({{in, n}, type, memory::format_tag::ba}, rows);
  memory to = view(layout, packed);
  dnnl::reorder(from, to).execute(thread_stream(), from, to);
  thread_stream().wait();
}

}  // namespace msa
