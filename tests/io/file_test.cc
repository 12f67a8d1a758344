#include "io/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "core/error.h"
#include "io/checksum.h"
#include "io/json_file.h"

namespace msa {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string folder = (fs::temp_directory_path() / "msa_file_XXXXXX").string();
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  size_t files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  std::string folder_;
};

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST_F(FileTest, MapsWhatWasWritten) {
  write_file_atomically(path("a"), "hello");
  const MappedFile file(path("a"));
  EXPECT_EQ(file.text(), "hello");
  EXPECT_EQ(read_file(path("a")), "hello");
  write_file_atomically(path("empty"), "");
  const MappedFile empty(path("empty"));
  EXPECT_EQ(empty.size(), 0u);
  EXPECT_TRUE(empty.text().empty());
}

TEST_F(FileTest, ReplacingAFileLeavesItsMapAlone) {
  write_file_atomically(path("a"), "old");
  const MappedFile before(path("a"));
  write_file_atomically(path("a"), "new content");
  EXPECT_EQ(before.text(), "old");
  EXPECT_EQ(read_file(path("a")), "new content");
  EXPECT_EQ(files(), 1u);
}

TEST_F(FileTest, AnUncommittedWriteLeavesNothing) {
  write_file_atomically(path("a"), "old");
  {
    AtomicFile file(path("a"));
    file.write("half");
  }
  EXPECT_EQ(read_file(path("a")), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(FileTest, ErrorsNameThePath) {
  EXPECT_NE(message_of([&] { MappedFile(path("absent")); }).find(path("absent")), std::string::npos);
  EXPECT_NE(message_of([&] { MappedFile{folder_}; }).find("not a regular file"), std::string::npos);
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_NE(message_of([&] { read_file(path("fifo")); }).find("not a regular file"), std::string::npos);
  EXPECT_NE(message_of([&] { write_file_atomically(path("no/folder"), "x"); }).find("no/folder"), std::string::npos);
  write_file_atomically(path("long"), "0123456789");
  EXPECT_NE(message_of([&] { read_file(path("long"), 9); }).find("10 bytes"), std::string::npos);
}

TEST(Checksum, AgreesWithThePublishedValues) {
  EXPECT_EQ(xxh3_64("", 0), 0x2d06800538d394c2u);
  EXPECT_EQ(xxh3_128_hex("", 0), "99aa06d3014798d86001c324468d497f");
  Xxh3 stream;
  stream.update("hel");
  stream.update("lo");
  EXPECT_EQ(stream.hex(), xxh3_128_hex("hello", 5));
}

TEST(Json, RefusesDepthDuplicatesAndDamage) {
  EXPECT_EQ(parse_json(R"({"a": [1, {"a": 2}], "b": {"a": 3}})", "x")["b"]["a"], 3);
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  EXPECT_NE(message_of([&] { parse_json(deep, "x.json"); }).find("x.json: JSON is nested"), std::string::npos);
  const std::string deep_objects = [] {
    std::string text;
    for (int i = 0; i < 1000; ++i) text += "{\"a\":";
    return text;
  }();
  EXPECT_NE(message_of([&] { parse_json(deep_objects, "x.json"); }).find("nested"), std::string::npos);
  EXPECT_NE(message_of([&] { parse_json(R"({"a": 1, "a": 2})", "x.json"); }).find("'a' twice"), std::string::npos);
  for (const char* bad : {"", "{", "[1,]", "{\"a\":1e999}", "\"\xff\"", "nul", "{} {}"}) {
    EXPECT_NE(message_of([&] { parse_json(bad, "x.json"); }).find("x.json: is not valid JSON"), std::string::npos)
        << bad;
  }
}

}  // namespace
}  // namespace msa
