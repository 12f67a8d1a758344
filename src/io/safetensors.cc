#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <set>

#include "core/quant.h"
#include "io/json_file.h"
#include "io/text.h"

namespace msa {
namespace {

using nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the format's own library
constexpr const char* kDamaged = "the file is damaged or incomplete: fetch it again";

struct TypeName {
  const char* name;
  DType type;
};
constexpr TypeName kTypes[] = {{"F32", DType::kF32}, {"F16", DType::kF16}, {"BF16", DType::kBF16},
                               {"I8", DType::kI8},   {"I32", DType::kI32}, {"I64", DType::kI64}};

/// A tensor's entry of the header, checked against the length of the data section.
struct Entry {
  std::string name;
  DType type = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes from the start of the data section
  uint64_t end = 0;
};

std::string location(const std::string& path, const std::string& name) {
  return path + ", tensor '" + printable(name) + "'";
}

DType read_type(const json& entry, const std::string& where) {
  const auto it = entry.find("dtype");
  if (it == entry.end() || !it->is_string()) throw Error("has no dtype", where, kDamaged);
  const std::string& name = it->get_ref<const std::string&>();
  for (const TypeName& t : kTypes) {
    if (name == t.name) return t.type;
  }
  throw Error("has the unsupported type " + printable(name), where, "convert it to F32, F16 or BF16");
}

std::optional<uint64_t> as_count(const json& value) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  return std::nullopt;
}

std::vector<int64_t> read_shape(const json& entry, const std::string& where) {
  const auto it = entry.find("shape");
  if (it == entry.end() || !it->is_array()) throw Error("has no shape", where, kDamaged);
  if (it->size() > Tensor::kMaxRank) {
    throw Error("has " + std::to_string(it->size()) + " dimensions, at most 4 are supported", where);
  }
  std::vector<int64_t> shape;
  for (const json& value : *it) {
    const auto n = as_count(value);
    if (!n || *n > static_cast<uint64_t>(INT64_MAX)) throw Error("has an impossible shape", where, kDamaged);
    shape.push_back(static_cast<int64_t>(*n));
  }
  if (shape.empty()) shape.push_back(1);
  return shape;
}

/// Bytes of the tensor; Error on overflow, even where a zero dimension would hide it.
uint64_t checked_bytes(const Entry& entry, const std::string& where) {
  int64_t bytes = traits(entry.type).block_bytes;
  bool empty = false;
  for (const int64_t n : entry.shape) {
    empty = empty || n == 0;
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(n, 1), &bytes)) {
      throw Error("has an impossible shape: its size overflows", where, kDamaged);
    }
  }
  return empty ? 0 : static_cast<uint64_t>(bytes);
}

Entry read_entry(const std::string& path, const std::string& name, const json& value, uint64_t data_bytes) {
  const std::string where = location(path, name);
  if (!value.is_object()) throw Error("its header entry is no object", where, kDamaged);
  Entry entry;
  entry.name = name;
  entry.type = read_type(value, where);
  entry.shape = read_shape(value, where);
  const auto offsets = value.find("data_offsets");
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2 || !as_count((*offsets)[0]) ||
      !as_count((*offsets)[1])) {
    throw Error("has no data_offsets", where, kDamaged);
  }
  entry.begin = *as_count((*offsets)[0]);
  entry.end = *as_count((*offsets)[1]);
  if (entry.begin > entry.end || entry.end > data_bytes) {
    throw Error("lies at bytes " + std::to_string(entry.begin) + " to " + std::to_string(entry.end) +
                    " of a data section of " + std::to_string(data_bytes),
                where, kDamaged);
  }
  const uint64_t bytes = checked_bytes(entry, where);
  if (entry.end - entry.begin != bytes) {
    throw Error(
        "takes " + std::to_string(entry.end - entry.begin) + " bytes where its shape asks for " + std::to_string(bytes),
        where, kDamaged);
  }
  return entry;
}

void refuse_overlap(const std::string& path, const std::vector<Entry>& entries) {
  std::vector<const Entry*> sorted;
  for (const Entry& e : entries) {
    if (e.begin != e.end) sorted.push_back(&e);
  }
  std::sort(sorted.begin(), sorted.end(), [](const Entry* a, const Entry* b) { return a->begin < b->begin; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i]->begin < sorted[i - 1]->end) {
      throw Error("overlaps tensor '" + printable(sorted[i - 1]->name) + "'", location(path, sorted[i]->name),
                  kDamaged);
    }
  }
}

std::map<std::string, std::string> read_metadata(const std::string& path, const json& value) {
  std::map<std::string, std::string> metadata;
  if (!value.is_object()) throw Error("__metadata__ is no object", path, kDamaged);
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) throw Error("__metadata__ holds something that is no string", path, kDamaged);
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

uint64_t header_length(std::span<const std::byte> bytes, const std::string& path) {
  if (bytes.size() < kLengthBytes) {
    throw Error("is " + std::to_string(bytes.size()) + " bytes long: no safetensors file", path, kDamaged);
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxHeaderBytes || length > bytes.size() - kLengthBytes) {
    throw Error("claims a header of " + std::to_string(length) + " bytes in a file of " + std::to_string(bytes.size()),
                path, kDamaged);
  }
  return length;
}

/// Length and JSON header, padded to 8 bytes; `stored` tells the type a tensor has in the file.
std::string header_of(const std::vector<NamedTensor>& tensors, const std::map<std::string, std::string>& metadata,
                      const std::function<DType(const Tensor&)>& stored) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const DType type = stored(tensor);
    MSA_CHECK(!is_quantised(type) && !header.contains(name));
    const std::vector<int64_t> shape(tensor.shape.begin(), tensor.shape.begin() + tensor.rank);
    const int64_t end = offset + tensor.elements() * traits(type).block_bytes;
    header[name] = {{"dtype", traits(type).name}, {"shape", shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), kLengthBytes) + text;
}

void write_rows(AtomicFile& file, const Tensor& tensor) {
  if (tensor.is_dense()) return file.write(tensor.data, static_cast<size_t>(tensor.bytes()));
  const auto row_bytes = static_cast<size_t>(tensor.dense_row_bytes());
  for (int64_t i = 0; i < tensor.rows(); ++i) file.write(tensor.row<char>(i), row_bytes);
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile file;
  file.path_ = path;
  file.file_ = MappedFile(path);
  file.bytes_ = file.file_.bytes();
  file.read_header();
  return file;
}

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  SafetensorsFile file;
  file.path_ = name;
  file.bytes_ = bytes;
  file.read_header();
  return file;
}

void SafetensorsFile::read_header() {
  const uint64_t length = header_length(bytes_, path_);
  const auto text = std::string_view(reinterpret_cast<const char*>(bytes_.data()) + kLengthBytes, length);
  const std::span<const std::byte> data = bytes_.subspan(kLengthBytes + length);
  const json header = parse_json(text, path_);
  if (!header.is_object()) throw Error("its header is no JSON object", path_, kDamaged);

  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__")
      metadata_ = read_metadata(path_, value);
    else
      entries.push_back(read_entry(path_, name, value, data.size()));
  }
  refuse_overlap(path_, entries);

  for (const Entry& e : entries) {
    const std::byte* at = data.data() + e.begin;
    const auto alignment = static_cast<uintptr_t>(traits(e.type).block_bytes);
    if (reinterpret_cast<uintptr_t>(at) % alignment != 0 && e.end != e.begin) {
      const size_t bytes = e.end - e.begin;
      at = static_cast<const std::byte*>(std::memcpy(aligned_copies_.emplace_back(bytes).data(), at, bytes));
    }
    tensors_.emplace(e.name,
                     Tensor(const_cast<std::byte*>(at), e.type, e.shape.data(), static_cast<int>(e.shape.size())));
  }
}

const Tensor* SafetensorsFile::find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

Tensor SafetensorsFile::get(const std::string& name) const {
  const Tensor* tensor = find(name);
  if (tensor == nullptr) throw Error("is missing", location(path_, name), "check that the file belongs to this model");
  return *tensor;
}

std::vector<SafetensorsFile> open_safetensors_directory(const std::string& directory) {
  std::vector<SafetensorsFile> files;
  const std::string index_path = directory + "/model.safetensors.index.json";
  if (!file_exists(index_path)) {
    files.push_back(SafetensorsFile::open(directory + "/model.safetensors"));
    return files;
  }
  const json index = read_json_file(index_path);
  const auto weight_map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || weight_map == index.end() || !weight_map->is_object()) {
    throw Error("has no weight_map", index_path, kDamaged);
  }
  std::map<std::string, std::vector<std::string>> tensors_of_file;
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!file.is_string()) throw Error("names no file", location(index_path, tensor), kDamaged);
    const std::string name = file.get<std::string>();
    if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\0", 2)) != name.npos) {
      throw Error("names the file '" + printable(name) + "', which does not lie in this folder",
                  location(index_path, tensor), kDamaged);
    }
    tensors_of_file[name].push_back(tensor);
  }
  std::set<std::string> seen;
  for (const auto& [name, tensors] : tensors_of_file) {
    files.push_back(SafetensorsFile::open(directory + "/" + name));
    for (const std::string& tensor : tensors) files.back().get(tensor);
    for (const auto& [tensor, view] : files.back().tensors()) {
      if (!seen.insert(tensor).second) {
        throw Error("lies in another file of this model too", location(files.back().path(), tensor), kDamaged);
      }
    }
  }
  if (files.empty()) throw Error("names no tensor", index_path, kDamaged);
  return files;
}

void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const auto as_is = [](const Tensor& t) { return t.dtype; };
  AtomicFile file(path);
  file.write(header_of(tensors, metadata, as_is));
  for (const auto& [name, tensor] : tensors) write_rows(file, tensor);
  file.commit();
}

void write_safetensors_as(DType type, const std::string& path, const std::vector<NamedTensor>& tensors,
                          const std::map<std::string, std::string>& metadata) {
  AtomicFile file(path);
  file.write(header_of(tensors, metadata, [&](const Tensor&) { return type; }));
  std::vector<float> values;
  std::vector<char> stored;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.dtype == type) {
      write_rows(file, tensor);
      continue;
    }
    const int64_t n = tensor.row_elements();
    values.resize(static_cast<size_t>(n));
    stored.resize(static_cast<size_t>(n * traits(type).block_bytes));
    for (int64_t i = 0; i < tensor.rows(); ++i) {
      dequantise_row(tensor.dtype, tensor.row<void>(i), n, values.data());
      quantise_row(type, values.data(), n, stored.data());
      file.write(stored.data(), stored.size());
    }
  }
  file.commit();
}

}  // namespace msa
