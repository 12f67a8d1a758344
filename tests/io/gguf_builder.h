// Writes GGUF files for tests: well-formed by default, wrong where a test asks for it.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "io/gguf.h"

namespace msa {

class GgufBuilder {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;

  template <class T>
  static std::string bytes_of(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  static std::string string_of(std::string_view text) { return bytes_of<uint64_t>(text.size()) + std::string(text); }

  /// A value already encoded; `type` is its number in the format.
  void add_raw(std::string_view key, uint32_t type, const std::string& encoded) {
    values_ += string_of(key) + bytes_of(type) + encoded;
    ++value_count_;
  }
  void add(std::string_view key, uint32_t value) { add_raw(key, 4, bytes_of(value)); }
  void add(std::string_view key, float value) { add_raw(key, 6, bytes_of(value)); }
  void add(std::string_view key, std::string_view value) { add_raw(key, 8, string_of(value)); }
  void add(std::string_view key, const char* value) { add(key, std::string_view(value)); }
  void add(std::string_view key, const std::vector<std::string>& values) {
    std::string encoded = bytes_of<uint32_t>(8) + bytes_of<uint64_t>(values.size());
    for (const std::string& value : values) encoded += string_of(value);
    add_raw(key, 9, encoded);
  }
  void add(std::string_view key, const std::vector<int32_t>& values) {
    std::string encoded = bytes_of<uint32_t>(5) + bytes_of<uint64_t>(values.size());
    for (const int32_t value : values) encoded += bytes_of(value);
    add_raw(key, 9, encoded);
  }

  /// `dims` in the file's order, the fastest first.
  void add_info(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    infos_ += string_of(name) + bytes_of(static_cast<uint32_t>(dims.size()));
    for (const uint64_t n : dims) infos_ += bytes_of(n);
    infos_ += bytes_of(type) + bytes_of(offset);
    ++tensor_count_;
  }
  void add_tensor(std::string_view name, const Tensor& t) {
    std::vector<uint64_t> dims;
    for (int i = t.rank - 1; i >= 0; --i) dims.push_back(static_cast<uint64_t>(t.dim(i)));
    add_info(name, dims, type_number(t.dtype), data_.size());
    data_.append(static_cast<const char*>(t.data), static_cast<size_t>(t.bytes()));
    pad(data_);
  }
  void add_data(const std::string& bytes) { data_ += bytes; }

  std::string header() const {
    return "GGUF" + bytes_of(version) + bytes_of(tensor_count_) + bytes_of(value_count_) + values_ + infos_;
  }
  std::string build() const {
    std::string file = header();
    pad(file);
    return file + data_;
  }

 private:
  static uint32_t type_number(DType type) {
    switch (type) {
      case DType::kF32: return 0;
      case DType::kF16: return 1;
      case DType::kQ4_0: return 2;
      case DType::kQ4_1: return 3;
      case DType::kQ5_0: return 6;
      case DType::kQ8_0: return 8;
      case DType::kQ4_K: return 12;
      case DType::kQ6_K: return 14;
      case DType::kI8: return 24;
      case DType::kI32: return 26;
      case DType::kI64: return 27;
      case DType::kBF16: return 30;
    }
    return 0;
  }
  void pad(std::string& text) const { text.resize((text.size() + alignment - 1) / alignment * alignment, '\0'); }

  std::string values_, infos_, data_;
  uint64_t value_count_ = 0, tensor_count_ = 0;
};

}  // namespace msa
