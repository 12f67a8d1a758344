#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "hostile.h"

namespace msa {
namespace {

namespace fs = std::filesystem;

std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  file += header;
  for (size_t i = 0; i < data_bytes; ++i) file.push_back(static_cast<char>(i));
  return file;
}

SafetensorsFile parse(const std::string& file) {
  return SafetensorsFile::parse(std::as_bytes(std::span(file)), "x.safetensors");
}

std::string message_of(const std::string& file) {
  try {
    parse(file);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

class SafetensorsDirectory : public testing::Test {
 protected:
  void SetUp() override {
    std::string folder = (fs::temp_directory_path() / "msa_safetensors_XXXXXX").string();
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  void write_index(const std::string& text) const { write_file_atomically(path("model.safetensors.index.json"), text); }
  std::string open_message() const {
    try {
      open_safetensors_directory(folder_);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }

  std::string folder_;
  std::vector<float> numbers_ = {1, 2, 3, 4, 5, 6};
};

TEST_F(SafetensorsDirectory, WritesWhatItReads) {
  Tensor matrix(numbers_.data(), DType::kF32, {2, 3});
  std::vector<int64_t> ids = {7, -8};
  Tensor strided = matrix.slice_columns(1, 3);
  write_safetensors(path("model.safetensors"),
                    {{"matrix", matrix}, {"ids", Tensor(ids.data(), DType::kI64, {2})}, {"strided", strided}},
                    {{"format", "pt"}});
  const auto files = open_safetensors_directory(folder_);
  ASSERT_EQ(files.size(), 1u);
  const SafetensorsFile& file = files[0];
  EXPECT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.get("matrix").describe(), "F32 [2, 3]");
  EXPECT_EQ(std::memcmp(file.get("matrix").data, numbers_.data(), 24), 0);
  EXPECT_EQ(file.get("ids").as<int64_t>()[1], -8);
  EXPECT_EQ(file.get("strided").row<float>(1)[0], 5.0f);
  EXPECT_EQ(file.find("other"), nullptr);
  EXPECT_THROW(file.get("other"), Error);
}

TEST_F(SafetensorsDirectory, OpensShardsByTheirIndex) {
  write_safetensors(path("a.safetensors"), {{"a", Tensor(numbers_.data(), DType::kF32, {6})}});
  write_safetensors(path("b.safetensors"), {{"b", Tensor(numbers_.data(), DType::kF32, {6})}});
  write_index(R"({"metadata": {}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}})");
  EXPECT_EQ(open_safetensors_directory(folder_).size(), 2u);
  write_index(R"({"weight_map": {"a": "a.safetensors", "b": "a.safetensors"}})");
  EXPECT_NE(open_message().find("a.safetensors, tensor 'b': is missing"), std::string::npos) << open_message();
  write_index(R"({"weight_map": {"a": "../a.safetensors"}})");
  EXPECT_NE(open_message().find("does not lie in this folder"), std::string::npos) << open_message();
  write_index(R"({"weight_map": {"a": "c.safetensors"}})");
  EXPECT_NE(open_message().find("c.safetensors: cannot be opened"), std::string::npos) << open_message();
  write_safetensors(path("b.safetensors"), {{"a", Tensor(numbers_.data(), DType::kF32, {6})},
                                            {"b", Tensor(numbers_.data(), DType::kF32, {6})}});
  write_index(R"({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}})");
  EXPECT_NE(open_message().find("another file"), std::string::npos) << open_message();
  for (const char* text : {"[]", "{}", "{\"weight_map\": 3}", "{\"weight_map\": {}}", "{\"weight_map\": {\"a\": 1}}"}) {
    write_index(text);
    EXPECT_NE(open_message().find("index.json"), std::string::npos) << text;
  }
}

TEST(Safetensors, ReadsTheGoldenCheckpoints) {
  const std::string folder = MSA_SOURCE_DIR "/tests/data/conformance/";
  for (const char* name : {"cosine-p8", "llama-p8"}) {
    const auto file = SafetensorsFile::open(folder + name + "/model.safetensors");
    EXPECT_EQ(file.get("model.norm.weight").dtype, DType::kF32);
  }
}

TEST(Safetensors, CopiesUnalignedTensors) {
  const std::string file = file_of(R"({"x":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},)"
                                   R"("y":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
                                   5);
  const SafetensorsFile read = parse(file);
  const Tensor y = read.get("y");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(y.data) % 4, 0u);
  EXPECT_EQ(std::memcmp(y.data, "\1\2\3\4", 4), 0);
}

TEST(Safetensors, ScalarsAndEmptyTensorsAreFine) {
  const SafetensorsFile read = parse(file_of(R"({"s":{"dtype":"F16","shape":[],"data_offsets":[0,2]},)"
                                             R"("e":{"dtype":"F32","shape":[0,3],"data_offsets":[2,2]}})",
                                             2));
  EXPECT_EQ(read.get("s").describe(), "F16 [1]");
  EXPECT_EQ(read.get("e").elements(), 0);
  EXPECT_TRUE(parse(file_of("{}", 0)).tensors().empty());
}

// ---- Hostile files ----

/// Parses and reads every byte that the tensors claim to have.
void read_all(std::span<const std::byte> bytes) {
  const SafetensorsFile file = SafetensorsFile::parse(bytes, "x.safetensors");
  unsigned sum = 0;
  for (const auto& [name, tensor] : file.tensors()) {
    for (int64_t i = 0; i < tensor.bytes(); ++i) sum += tensor.as<unsigned char>()[i];
  }
  volatile unsigned sink = sum;
  static_cast<void>(sink);
}

std::string small_file() {
  return file_of(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                 R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},)"
                 R"("c":{"dtype":"I64","shape":[1],"data_offsets":[22,30]}})",
                 30);
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return file_of(R"({"x":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}", 16);
}

void expect_refused(const std::string& file, const std::string& part) {
  const std::string message = message_of(file);
  EXPECT_NE(message.find("x.safetensors"), std::string::npos) << message;
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(HostileSafetensors, TruncatedAnywhere) { truncate_everywhere(small_file(), read_all); }

TEST(HostileSafetensors, RandomDamage) { damage_randomly(small_file(), 4000, read_all); }

TEST(HostileSafetensors, HeaderLengthLies) {
  for (const uint64_t length : {uint64_t{0}, uint64_t{1000}, uint64_t{100'000'001}, uint64_t{1} << 40, UINT64_MAX}) {
    std::string file = small_file();
    std::memcpy(file.data(), &length, 8);
    EXPECT_FALSE(survives(file, read_all)) << length;
  }
}

TEST(HostileSafetensors, ShapesAndOffsets) {
  expect_refused(one("\"F32\"", "[4]", "[0,12]"), "tensor 'x': takes 12 bytes where its shape asks for 16");
  expect_refused(one("\"F32\"", "[5]", "[0,20]"), "lies at bytes 0 to 20 of a data section of 16");
  expect_refused(one("\"F32\"", "[4]", "[16,0]"), "lies at bytes 16 to 0");
  expect_refused(one("\"F32\"", "[4]", "[18446744073709551600,0]"), "lies at bytes");
  expect_refused(one("\"F32\"", "[4]", "[-16,0]"), "no data_offsets");
  expect_refused(one("\"F32\"", "[4]", "[0]"), "no data_offsets");
  expect_refused(one("\"F32\"", "[4611686018427387904,4]", "[0,0]"), "its size overflows");
  expect_refused(one("\"F32\"", "[4611686018427387904,4611686018427387904,0]", "[0,0]"), "its size overflows");
  expect_refused(one("\"F32\"", "[9223372036854775808]", "[0,0]"), "impossible shape");
  expect_refused(one("\"F32\"", "[-1]", "[0,0]"), "impossible shape");
  expect_refused(one("\"F32\"", "[1.5]", "[0,0]"), "impossible shape");
  expect_refused(one("\"F32\"", "[1,1,1,1,1]", "[0,4]"), "5 dimensions");
  expect_refused(one("\"F32\"", "4", "[0,16]"), "has no shape");
  expect_refused(one("\"F8_E4M3\"", "[16]", "[0,16]"), "unsupported type F8_E4M3");
  expect_refused(one("7", "[16]", "[0,16]"), "has no dtype");
}

TEST(HostileSafetensors, OverlapDuplicatesAndDepth) {
  expect_refused(file_of(R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)"
                         R"("b":{"dtype":"I8","shape":[4],"data_offsets":[3,7]}})",
                         8),
                 "tensor 'b': overlaps tensor 'a'");
  expect_refused(file_of(R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)"
                         R"("a":{"dtype":"I8","shape":[4],"data_offsets":[4,8]}})",
                         8),
                 "'a' twice");
  expect_refused(file_of(std::string(50000, '['), 0), "nested deeper");
  expect_refused(file_of("[]", 0), "no JSON object");
  expect_refused(file_of(R"({"a":[]})", 0), "no object");
  expect_refused(file_of(R"({"__metadata__":{"a":1}})", 0), "__metadata__");
  expect_refused(file_of("{\"\x01\":{}}", 0), "not valid JSON");
}

}  // namespace
}  // namespace msa
