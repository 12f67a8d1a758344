// A tensor is a view: pointer, type, shape, row stride, device. Buffers own memory.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/dtype.h"
#include "core/error.h"

namespace msa {

enum class DeviceType : uint8_t { kCpu, kCuda };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

/// Row-major view of up to four dimensions. The inner dimensions are dense; rows (dimension 0) may be further apart.
struct Tensor {
  static constexpr int kMaxRank = 4;

  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape{};
  int64_t row_bytes = 0;  // distance of consecutive rows (dimension 0)
  Device device;

  Tensor() = default;
  Tensor(void* memory, DType type, std::initializer_list<int64_t> dims, Device where = {});
  Tensor(void* memory, DType type, const int64_t* dims, int n_dims, Device where = {});
  /// Views memory that must only be read; writing through such a view is our own mistake.
  static Tensor of_const(const void* memory, DType type, std::initializer_list<int64_t> dims, Device where = {});

  bool empty() const { return data == nullptr; }
  int64_t dim(int i) const { return shape[static_cast<size_t>(i)]; }
  int64_t rows() const { return rank == 0 ? 0 : shape[0]; }
  int64_t row_elements() const;  // product of the dimensions after the first
  int64_t elements() const { return rows() * row_elements(); }
  int64_t dense_row_bytes() const;
  bool is_dense() const { return row_bytes == dense_row_bytes(); }
  int64_t bytes() const { return rows() * dense_row_bytes(); }  // of a dense tensor

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  template <class T>
  T* row(int64_t i) const {
    return reinterpret_cast<T*>(static_cast<char*>(data) + i * row_bytes);
  }

  Tensor slice_rows(int64_t begin, int64_t end) const;
  /// Columns [begin, end) of a matrix of a plain type, as a strided view.
  Tensor slice_columns(int64_t begin, int64_t end) const;
  /// The same dense elements under another shape.
  Tensor reshape(std::initializer_list<int64_t> dims) const;

  std::string describe() const;  // "BF16 [12, 576]"
};

}  // namespace msa
