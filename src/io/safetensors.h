// Safetensors files: 8 bytes header length, JSON header, tensor data. Reader of untrusted bytes, and a writer.
#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/buffer.h"
#include "core/tensor.h"
#include "io/file.h"

namespace msa {

/// One file. Its tensors are views into the map (copies where the file holds them unaligned) and live as long as it.
/// Types F32, F16, BF16, I8, I32, I64; up to four dimensions; a scalar appears as [1].
class SafetensorsFile {
 public:
  /// Throws Error naming file and tensor unless header, shapes and offsets are consistent.
  static SafetensorsFile open(const std::string& path);
  /// The same from memory that must outlive the result; `name` stands for the path in errors.
  static SafetensorsFile parse(std::span<const std::byte> bytes, const std::string& name);

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const Tensor* find(const std::string& name) const;  // null when absent
  Tensor get(const std::string& name) const;          // throws Error when absent

 private:
  SafetensorsFile() = default;
  void read_header();

  std::string path_;
  MappedFile file_;
  std::span<const std::byte> bytes_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::vector<Buffer> aligned_copies_;
};

/// Opens DIR/model.safetensors, or all shards that DIR/model.safetensors.index.json names; every tensor the index
/// lists must lie in the file it says, and no name in two files.
std::vector<SafetensorsFile> open_safetensors_directory(const std::string& directory);

using NamedTensor = std::pair<std::string, Tensor>;

/// Writes atomically, tensors of plain types in the given order; rows may be strided.
void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// The same, every tensor (floating or block type) converted row by row to `type`: F32, F16 or BF16.
void write_safetensors_as(DType type, const std::string& path, const std::vector<NamedTensor>& tensors,
                          const std::map<std::string, std::string>& metadata = {});

}  // namespace msa
