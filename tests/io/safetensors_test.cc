#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.h"

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

}  // namespace
}  // namespace msa
