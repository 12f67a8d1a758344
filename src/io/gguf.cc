#include "io/gguf.h"

#include <algorithm>
#include <cstring>

#include "io/text.h"

namespace msa {
namespace {

constexpr const char* kDamaged = "the file is damaged or incomplete: fetch it again";
constexpr uint64_t kMaxNameBytes = 65535;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;

struct TensorType {
  uint32_t id;
  const char* name;
  std::optional<DType> type;  // none: known to the format, not supported here
};
constexpr TensorType kTensorTypes[] = {{0, "F32", DType::kF32},
                                       {1, "F16", DType::kF16},
                                       {2, "Q4_0", DType::kQ4_0},
                                       {3, "Q4_1", DType::kQ4_1},
                                       {6, "Q5_0", DType::kQ5_0},
                                       {7, "Q5_1", {}},
                                       {8, "Q8_0", DType::kQ8_0},
                                       {9, "Q8_1", {}},
                                       {10, "Q2_K", {}},
                                       {11, "Q3_K", {}},
                                       {12, "Q4_K", DType::kQ4_K},
                                       {13, "Q5_K", {}},
                                       {14, "Q6_K", DType::kQ6_K},
                                       {15, "Q8_K", {}},
                                       {16, "IQ2_XXS", {}},
                                       {17, "IQ2_XS", {}},
                                       {18, "IQ3_XXS", {}},
                                       {19, "IQ1_S", {}},
                                       {20, "IQ4_NL", {}},
                                       {21, "IQ3_S", {}},
                                       {22, "IQ2_S", {}},
                                       {23, "IQ4_XS", {}},
                                       {24, "I8", DType::kI8},
                                       {25, "I16", {}},
                                       {26, "I32", DType::kI32},
                                       {27, "I64", DType::kI64},
                                       {28, "F64", {}},
                                       {29, "IQ1_M", {}},
                                       {30, "BF16", DType::kBF16},
                                       {34, "TQ1_0", {}},
                                       {35, "TQ2_0", {}},
                                       {39, "MXFP4", {}}};

std::string location(const std::string& path, const char* kind, std::string_view name) {
  return path + ", " + kind + " '" + printable(name) + "'";
}

DType tensor_type(uint32_t id, const std::string& where) {
  const auto known =
      std::find_if(std::begin(kTensorTypes), std::end(kTensorTypes), [&](const TensorType& t) { return t.id == id; });
  if (known != std::end(kTensorTypes) && known->type) return *known->type;
  const std::string name = known != std::end(kTensorTypes) ? known->name : std::to_string(id);
  throw Error("has the unsupported type " + name, where,
              "use a file of F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q4_K or Q6_K tensors");
}

/// Bytes of a value of fixed size; 0 for strings and arrays.
uint64_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool: return 1;
    case GgufType::kU16:
    case GgufType::kI16: return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32: return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64: return 8;
    case GgufType::kString:
    case GgufType::kArray: break;
  }
  return 0;
}

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

std::optional<int64_t> load_integer(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::kU8: return load<uint8_t>(at);
    case GgufType::kI8: return load<int8_t>(at);
    case GgufType::kU16: return load<uint16_t>(at);
    case GgufType::kI16: return load<int16_t>(at);
    case GgufType::kU32: return load<uint32_t>(at);
    case GgufType::kI32: return load<int32_t>(at);
    case GgufType::kI64: return load<int64_t>(at);
    case GgufType::kU64: {
      const auto value = load<uint64_t>(at);
      if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default: return std::nullopt;
  }
}

std::optional<double> load_number(GgufType type, const std::byte* at) {
  if (type == GgufType::kF32) return load<float>(at);
  if (type == GgufType::kF64) return load<double>(at);
  if (type == GgufType::kU64) return static_cast<double>(load<uint64_t>(at));
  const auto integer = load_integer(type, at);
  if (!integer) return std::nullopt;
  return static_cast<double>(*integer);
}

std::string_view load_string(const std::byte* at) {
  return {reinterpret_cast<const char*>(at) + sizeof(uint64_t), load<uint64_t>(at)};
}

/// Bytes of a tensor, or nullopt on overflow.
std::optional<uint64_t> tensor_bytes(DType type, std::span<const int64_t> shape) {
  const DTypeTraits t = traits(type);
  int64_t elements = 1;
  for (const int64_t n : shape) {
    if (__builtin_mul_overflow(elements, n, &elements)) return std::nullopt;
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(elements / t.block_elements, t.block_bytes, &bytes)) return std::nullopt;
  // Tensor multiplies before it divides.
  if (__builtin_mul_overflow(elements, t.block_bytes, &elements)) return std::nullopt;
  return static_cast<uint64_t>(bytes);
}

}  // namespace

/// Walks the header; every step is checked against the bytes that are left.
class GgufFile::Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }
  const std::byte* here() const { return bytes_.data() + position_; }

  void skip(uint64_t n, const char* what) {
    if (n > left()) {
      throw Error(std::string("ends inside ") + what + " at byte " + std::to_string(position_), path_, kDamaged);
    }
    position_ += n;
  }

  template <class T>
  T read(const char* what) {
    const std::byte* at = here();
    skip(sizeof(T), what);
    return load<T>(at);
  }

  std::string_view read_string(const char* what) {
    const std::byte* at = here();
    skip(read<uint64_t>(what), what);
    return load_string(at);
  }

  std::string_view read_name(const char* what) {
    const std::string_view name = read_string(what);
    if (name.empty() || name.size() > kMaxNameBytes) {
      throw Error(std::string("holds ") + what + " of " + std::to_string(name.size()) + " bytes", path_, kDamaged);
    }
    return name;
  }

  GgufType read_type(const char* what) {
    const auto id = read<uint32_t>(what);
    if (id > static_cast<uint32_t>(GgufType::kF64)) {
      throw Error(std::string("holds ") + what + " of the unknown type " + std::to_string(id), path_, kDamaged);
    }
    return static_cast<GgufType>(id);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& path_;
  uint64_t position_ = 0;
};

struct GgufFile::TensorInfo {
  std::string_view name;
  DType type = DType::kF32;
  std::vector<int64_t> shape;  // row-major
  uint64_t offset = 0;         // from the start of the data section
  uint64_t bytes = 0;
};

GgufFile GgufFile::open(const std::string& path) {
  GgufFile file;
  file.path_ = path;
  file.file_ = MappedFile(path);
  file.bytes_ = file.file_.bytes();
  file.read();
  return file;
}

GgufFile GgufFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  GgufFile file;
  file.path_ = name;
  file.bytes_ = bytes;
  file.read();
  return file;
}

void GgufFile::read() {
  Cursor cursor(bytes_, path_);
  if (cursor.left() < 4 || std::memcmp(cursor.here(), "GGUF", 4) != 0) {
    throw Error("does not start with the letters GGUF", path_, "name a GGUF file");
  }
  cursor.skip(4, "the magic number");
  const auto version = cursor.read<uint32_t>("the version");
  if (version != 2 && version != 3) {
    const bool swapped = __builtin_bswap32(version) == 2 || __builtin_bswap32(version) == 3;
    throw Error(swapped ? "is a big-endian GGUF file" : "is of GGUF version " + std::to_string(version), path_,
                "use a little-endian file of version 2 or 3");
  }
  const auto tensor_count = cursor.read<uint64_t>("the number of tensors");
  const auto value_count = cursor.read<uint64_t>("the number of metadata values");
  read_metadata(cursor, value_count);
  const std::vector<TensorInfo> infos = read_tensor_infos(cursor, tensor_count);

  const uint64_t align = alignment();
  const uint64_t padding = (align - cursor.position() % align) % align;
  if (!infos.empty()) cursor.skip(padding, "the padding before the tensor data");
  place_tensors(infos, bytes_.subspan(cursor.position()), align);
}

void GgufFile::read_metadata(Cursor& cursor, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = cursor.read_name("a metadata key");
    Value value;
    value.type = cursor.read_type("a metadata value");
    if (value.type == GgufType::kArray) {
      value.is_array = true;
      value.type = cursor.read_type("an array");
      value.count = cursor.read<uint64_t>("the length of an array");
      if (value.type == GgufType::kArray) {
        throw Error("is an array of arrays, which is not supported", location(path_, "metadata key", key));
      }
    }
    value.data = cursor.here();
    if (value.type == GgufType::kString) {
      for (uint64_t k = 0; k < value.count; ++k) cursor.read_string("a string");
    } else {
      uint64_t bytes = 0;
      if (__builtin_mul_overflow(value.count, scalar_bytes(value.type), &bytes)) bytes = UINT64_MAX;
      cursor.skip(bytes, "a metadata value");
    }
    if (!values_.emplace(key, value).second)
      throw Error("appears twice", location(path_, "metadata key", key), kDamaged);
  }
}

std::vector<GgufFile::TensorInfo> GgufFile::read_tensor_infos(Cursor& cursor, uint64_t count) const {
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < count; ++i) {
    TensorInfo info;
    info.name = cursor.read_name("a tensor name");
    const std::string where = location(path_, "tensor", info.name);
    const auto rank = cursor.read<uint32_t>("a tensor's shape");
    if (rank < 1 || rank > Tensor::kMaxRank) {
      throw Error("has " + std::to_string(rank) + " dimensions, 1 to 4 are supported", where);
    }
    info.shape.resize(rank);
    for (uint32_t k = 0; k < rank; ++k) {
      const auto n = cursor.read<uint64_t>("a tensor's shape");
      if (n < 1 || n > static_cast<uint64_t>(INT64_MAX)) throw Error("has an impossible shape", where, kDamaged);
      info.shape[rank - 1 - k] = static_cast<int64_t>(n);
    }
    info.type = tensor_type(cursor.read<uint32_t>("a tensor's type"), where);
    info.offset = cursor.read<uint64_t>("a tensor's offset");
    const auto bytes = tensor_bytes(info.type, info.shape);
    const int64_t block = traits(info.type).block_elements;
    if (!bytes) throw Error("has an impossible shape: its size overflows", where, kDamaged);
    if (info.shape.back() % block != 0) {
      throw Error("has rows of " + std::to_string(info.shape.back()) + " elements, " + traits(info.type).name +
                      " asks for a multiple of " + std::to_string(block),
                  where, kDamaged);
    }
    info.bytes = *bytes;
    infos.push_back(std::move(info));
  }
  return infos;
}

void GgufFile::place_tensors(const std::vector<TensorInfo>& infos, std::span<const std::byte> data,
                             uint64_t alignment) {
  std::vector<const TensorInfo*> sorted;
  for (const TensorInfo& info : infos) {
    const std::string where = location(path_, "tensor", info.name);
    if (info.offset % alignment != 0) {
      throw Error("lies at offset " + std::to_string(info.offset) + ", which is no multiple of the alignment " +
                      std::to_string(alignment),
                  where, kDamaged);
    }
    if (info.offset > data.size() || info.bytes > data.size() - info.offset) {
      throw Error("takes " + std::to_string(info.bytes) + " bytes at offset " + std::to_string(info.offset) +
                      " of a data section of " + std::to_string(data.size()),
                  where, kDamaged);
    }
    const Tensor view(const_cast<std::byte*>(data.data() + info.offset), info.type, info.shape.data(),
                      static_cast<int>(info.shape.size()));
    if (!tensors_.emplace(info.name, view).second) throw Error("appears twice", where, kDamaged);
    sorted.push_back(&info);
  }
  std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i]->offset < sorted[i - 1]->offset + sorted[i - 1]->bytes) {
      throw Error("overlaps tensor '" + printable(sorted[i - 1]->name) + "'",
                  location(path_, "tensor", sorted[i]->name), kDamaged);
    }
  }
}

uint64_t GgufFile::alignment() const {
  const auto value = integer("general.alignment");
  if (!value) return kDefaultAlignment;
  const auto alignment = static_cast<uint64_t>(*value);
  if (*value < 8 || alignment > kMaxAlignment || (alignment & (alignment - 1)) != 0) {
    throw Error("is " + std::to_string(*value) + ", expected a power of two of at least 8",
                location(path_, "metadata key", "general.alignment"), kDamaged);
  }
  return alignment;
}

void GgufFile::refuse_value(std::string_view key, const char* expected) const {
  throw Error(std::string("is not ") + expected, location(path_, "metadata key", key), kDamaged);
}

const GgufFile::Value* GgufFile::find_value(std::string_view key, bool is_array) const {
  const auto it = values_.find(key);
  if (it == values_.end()) return nullptr;
  if (it->second.is_array != is_array) refuse_value(key, is_array ? "an array" : "a single value");
  return &it->second;
}

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const Value* value = find_value(key, false);
  if (value == nullptr) return std::nullopt;
  const auto found = load_integer(value->type, value->data);
  if (!found) refuse_value(key, "an integer below 2^63");
  return found;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const Value* value = find_value(key, false);
  if (value == nullptr) return std::nullopt;
  const auto found = load_number(value->type, value->data);
  if (!found) refuse_value(key, "a number");
  return found;
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const Value* value = find_value(key, false);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kBool) refuse_value(key, "a boolean");
  return load<uint8_t>(value->data) != 0;
}

std::optional<std::string_view> GgufFile::string(std::string_view key) const {
  const Value* value = find_value(key, false);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kString) refuse_value(key, "a string");
  return load_string(value->data);
}

std::vector<int64_t> GgufFile::integers(std::string_view key) const {
  const Value* value = find_value(key, true);
  std::vector<int64_t> all;
  if (value == nullptr) return all;
  const uint64_t step = scalar_bytes(value->type);
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto element = load_integer(value->type, value->data + i * step);
    if (!element) refuse_value(key, "an array of integers");
    all.push_back(*element);
  }
  return all;
}

std::vector<double> GgufFile::numbers(std::string_view key) const {
  const Value* value = find_value(key, true);
  std::vector<double> all;
  if (value == nullptr) return all;
  const uint64_t step = scalar_bytes(value->type);
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto element = load_number(value->type, value->data + i * step);
    if (!element) refuse_value(key, "an array of numbers");
    all.push_back(*element);
  }
  return all;
}

std::vector<std::string_view> GgufFile::strings(std::string_view key) const {
  const Value* value = find_value(key, true);
  std::vector<std::string_view> all;
  if (value == nullptr) return all;
  if (value->type != GgufType::kString) refuse_value(key, "an array of strings");
  all.reserve(value->count);  // each takes at least 8 bytes of the file
  const std::byte* at = value->data;
  for (uint64_t i = 0; i < value->count; ++i) {
    all.push_back(load_string(at));
    at += sizeof(uint64_t) + all.back().size();
  }
  return all;
}

std::vector<std::string_view> GgufFile::keys() const {
  std::vector<std::string_view> all;
  for (const auto& [key, value] : values_) all.push_back(key);
  return all;
}

const Tensor* GgufFile::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace msa
