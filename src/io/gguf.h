// GGUF files, versions 2 and 3: metadata, tensor infos, tensor data. Reader of untrusted bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "io/file.h"

namespace msa {

enum class GgufType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

/// One file. Tensors and strings are views into the map and live as long as it. Allocates nothing but the two indices:
/// arrays stay in the map until they are asked for.
class GgufFile {
 public:
  /// Throws Error naming file and key or tensor unless every count, length and offset is consistent.
  static GgufFile open(const std::string& path);
  /// The same from memory that must outlive the result; `name` stands for the path in errors.
  static GgufFile parse(std::span<const std::byte> bytes, const std::string& name);

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }

  /// Metadata. Absent keys give nullopt (an empty vector for arrays); a value of another kind throws Error naming the
  /// key. Integers are those of any width, numbers integers or floats.
  bool has(std::string_view key) const { return values_.contains(key); }
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string_view> strings(std::string_view key) const;
  std::vector<std::string_view> keys() const;

  /// Shapes in row-major order: [out, in], the reverse of the file's. Data 8-byte aligned in a mapped file.
  const std::map<std::string_view, Tensor>& tensors() const { return tensors_; }
  const Tensor* find(std::string_view name) const;  // null when absent

 private:
  /// Bytes of one checked value inside the file; `count` elements when it is an array.
  struct Value {
    GgufType type = GgufType::kU8;  // of the elements
    bool is_array = false;
    uint64_t count = 1;
    const std::byte* data = nullptr;
  };
  class Cursor;
  struct TensorInfo;

  GgufFile() = default;
  void read();
  void read_metadata(Cursor& cursor, uint64_t count);
  std::vector<TensorInfo> read_tensor_infos(Cursor& cursor, uint64_t count) const;
  void place_tensors(const std::vector<TensorInfo>& infos, std::span<const std::byte> data, uint64_t alignment);
  uint64_t alignment() const;
  const Value* find_value(std::string_view key, bool is_array) const;
  [[noreturn]] void refuse_value(std::string_view key, const char* expected) const;

  std::string path_;
  MappedFile file_;
  std::span<const std::byte> bytes_;
  std::map<std::string_view, Value> values_;
  std::map<std::string_view, Tensor> tensors_;
};

}  // namespace msa
