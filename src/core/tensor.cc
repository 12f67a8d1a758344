#include "core/tensor.h"

#include <algorithm>

namespace msa {

Tensor::Tensor(void* memory, DType type, std::initializer_list<int64_t> dims, Device where)
    : Tensor(memory, type, dims.begin(), static_cast<int>(dims.size()), where) {}

Tensor::Tensor(void* memory, DType type, const int64_t* dims, int n_dims, Device where)
    : data(memory), dtype(type), rank(n_dims), device(where) {
  MSA_CHECK(rank >= 1 && rank <= kMaxRank);
  std::copy(dims, dims + n_dims, shape.begin());
  row_bytes = dense_row_bytes();
}

Tensor Tensor::of_const(const void* memory, DType type, std::initializer_list<int64_t> dims, Device where) {
  return Tensor(const_cast<void*>(memory), type, dims, where);
}

int64_t Tensor::row_elements() const {
  int64_t n = 1;
  for (int i = 1; i < rank; ++i) n *= dim(i);
  return n;
}

int64_t Tensor::dense_row_bytes() const {
  const DTypeTraits t = traits(dtype);
  return row_elements() * t.block_bytes / t.block_elements;
}

Tensor Tensor::slice_rows(int64_t begin, int64_t end) const {
  MSA_CHECK(0 <= begin && begin <= end && end <= rows());
  Tensor t = *this;
  t.data = row<char>(begin);
  t.shape[0] = end - begin;
  return t;
}

Tensor Tensor::slice_columns(int64_t begin, int64_t end) const {
  MSA_CHECK(rank == 2 && !is_quantised(dtype) && 0 <= begin && begin <= end && end <= dim(1));
  Tensor t = *this;
  t.data = as<char>() + begin * traits(dtype).block_bytes;
  t.shape[1] = end - begin;
  return t;
}

Tensor Tensor::reshape(std::initializer_list<int64_t> dims) const {
  MSA_CHECK(is_dense());
  Tensor t(data, dtype, dims, device);
  MSA_CHECK(t.elements() == elements());
  return t;
}

std::string Tensor::describe() const {
  std::string text = traits(dtype).name;
  text += " [";
  for (int i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(dim(i));
  return text + "]";
}

}  // namespace msa
