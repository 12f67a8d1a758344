#include "io/gguf.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/error.h"
#include "core/quant.h"
#include "gguf_builder.h"
#include "hostile.h"

namespace msa {
namespace {

TEST(Gguf, ReadsTheDefaultModel) {
  const std::string path = MSA_SOURCE_DIR "/models/smollm2-135m-msa/base.gguf";
  if (!file_exists(path)) GTEST_SKIP() << path << " is not there; set-up fetches it";
  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file.tensors().size(), 272u);
  EXPECT_EQ(file.string("general.architecture"), "llama");
  EXPECT_EQ(file.integer("llama.block_count"), 30);
  EXPECT_EQ(file.number("llama.rope.freq_base"), 100000.0);
  EXPECT_EQ(file.boolean("tokenizer.ggml.add_bos_token"), false);
  EXPECT_EQ(file.strings("tokenizer.ggml.tokens").size(), 49152u);
  EXPECT_EQ(file.strings("tokenizer.ggml.merges")[2], "i n");
  EXPECT_EQ(file.integers("tokenizer.ggml.token_type")[0], 3);
  EXPECT_EQ(file.find("token_embd.weight")->describe(), "Q8_0 [49152, 576]");
  EXPECT_EQ(file.find("blk.0.attn_k.weight")->describe(), "Q4_1 [192, 576]");
  EXPECT_EQ(file.integer("no.such.key"), std::nullopt);
  EXPECT_THROW(file.integer("general.architecture"), Error);
  EXPECT_THROW(file.string("tokenizer.ggml.tokens"), Error);
}

/// Parses and reads every value and every byte that the tensors claim to have.
void read_all(std::span<const std::byte> bytes) {
  const GgufFile file = GgufFile::parse(bytes, "x.gguf");
  size_t sum = 0;
  const auto read = [&](auto accessor) {
    for (const std::string_view key : file.keys()) {
      try {
        sum += accessor(key);
      } catch (const Error&) {
        // another kind of value
      }
    }
  };
  read([&](std::string_view key) { return static_cast<size_t>(file.integer(key).value_or(0)); });
  read([&](std::string_view key) { return file.number(key).value_or(0) > 0 ? 1u : 0u; });
  read([&](std::string_view key) { return file.boolean(key).value_or(false) ? 1u : 0u; });
  read([&](std::string_view key) { return std::string(file.string(key).value_or("")).size(); });
  read([&](std::string_view key) { return file.integers(key).size(); });
  read([&](std::string_view key) { return file.numbers(key).size(); });
  read([&](std::string_view key) {
    size_t length = 0;
    for (const std::string_view text : file.strings(key)) length += std::string(text).size();
    return length;
  });
  for (const auto& [name, tensor] : file.tensors()) {
    for (int64_t i = 0; i < tensor.bytes(); ++i) sum += tensor.as<unsigned char>()[i];
  }
  volatile size_t sink = sum;
  static_cast<void>(sink);
}

GgufBuilder small_file() {
  static const std::vector<char> kZeros(1024);
  GgufBuilder builder;
  builder.add("general.architecture", "llama");
  builder.add("llama.block_count", 2u);
  builder.add("llama.eps", 0.5f);
  builder.add("tokens", std::vector<std::string>{"a", "", "ccc"});
  builder.add("types", std::vector<int32_t>{1, -2, 3});
  builder.add_raw("yes", 7, std::string(1, '\1'));
  builder.add_raw("huge", 10, GgufBuilder::bytes_of(UINT64_MAX));
  builder.add_tensor("plain", Tensor::of_const(kZeros.data(), DType::kF32, {2, 3}));
  builder.add_tensor("blocks", Tensor::of_const(kZeros.data(), DType::kQ4_1, {3, 64}));
  builder.add_tensor("k", Tensor::of_const(kZeros.data(), DType::kQ6_K, {1, 256}));
  return builder;
}

std::string message_of(const std::string& file) {
  try {
    GgufFile::parse(std::as_bytes(std::span(file)), "x.gguf");
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

void expect_refused(const std::string& file, const std::string& part) {
  const std::string message = message_of(file);
  EXPECT_NE(message.find("x.gguf"), std::string::npos) << message;
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(Gguf, ReadsEveryKindOfValue) {
  const std::string bytes = small_file().build();
  const GgufFile file = GgufFile::parse(std::as_bytes(std::span(bytes)), "x.gguf");
  EXPECT_EQ(file.string("general.architecture"), "llama");
  EXPECT_EQ(file.integer("llama.block_count"), 2);
  EXPECT_EQ(file.number("llama.block_count"), 2.0);
  EXPECT_EQ(file.number("llama.eps"), 0.5);
  EXPECT_EQ(file.strings("tokens"), (std::vector<std::string_view>{"a", "", "ccc"}));
  EXPECT_EQ(file.integers("types"), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(file.numbers("types"), (std::vector<double>{1, -2, 3}));
  EXPECT_EQ(file.boolean("yes"), true);
  EXPECT_THROW(file.integer("huge"), Error);
  EXPECT_EQ(file.number("huge"), 0x1p64);
  EXPECT_THROW(file.strings("types"), Error);
  EXPECT_THROW(file.integers("tokens"), Error);
  EXPECT_EQ(file.find("plain")->describe(), "F32 [2, 3]");
  EXPECT_EQ(file.find("blocks")->describe(), "Q4_1 [3, 64]");
  EXPECT_EQ(file.find("blocks")->row_bytes, 40);
  GgufBuilder empty;
  empty.version = 2;
  EXPECT_EQ(message_of(empty.header()), "no error");
}

TEST(Gguf, HonoursTheAlignment) {
  GgufBuilder builder;
  builder.alignment = 64;
  builder.add("general.alignment", 64u);
  const std::vector<float> numbers = {1, 2, 3};
  builder.add_tensor("a", Tensor::of_const(numbers.data(), DType::kF32, {3}));
  builder.add_tensor("b", Tensor::of_const(numbers.data(), DType::kF32, {3}));
  const std::string bytes = builder.build();
  const GgufFile file = GgufFile::parse(std::as_bytes(std::span(bytes)), "x.gguf");
  EXPECT_EQ(std::memcmp(file.find("b")->data, numbers.data(), 12), 0);
  for (const uint32_t wrong : {0u, 1u, 4u, 24u, 1u << 30}) {
    GgufBuilder other;
    other.add("general.alignment", wrong);
    expect_refused(other.build(), "general.alignment");
  }
}

TEST(HostileGguf, TruncatedAnywhere) {
  std::string file = small_file().build();
  file.resize(file.size() - (256 - 210) % 32);  // the padding behind the last tensor may be missing
  truncate_everywhere(file, read_all);
}

TEST(HostileGguf, RandomDamage) { damage_randomly(small_file().build(), 8000, read_all); }

TEST(HostileGguf, CountsAndLengthsLie) {
  const std::string good = small_file().build();
  for (const size_t at : {size_t{8}, size_t{16}, size_t{24}}) {  // tensors, values, length of the first key
    for (const uint64_t count : {uint64_t{1000}, uint64_t{1} << 40, uint64_t{INT64_MAX}, UINT64_MAX}) {
      std::string file = good;
      std::memcpy(file.data() + at, &count, 8);
      EXPECT_FALSE(survives(file, read_all)) << at << " " << count;
    }
  }
  for (const uint32_t type : {0u, 5u, 8u, 12u}) {
    GgufBuilder builder;
    builder.add_raw("array", 9, GgufBuilder::bytes_of(type) + GgufBuilder::bytes_of(uint64_t{1} << 61));
    expect_refused(builder.build(), "ends inside");
  }
}

TEST(HostileGguf, HeadersAndTypes) {
  expect_refused("", "GGUF");
  expect_refused("GGML" + std::string(100, '\0'), "GGUF");
  for (const uint32_t version : {0u, 1u, 4u}) {
    GgufBuilder builder;
    builder.version = version;
    expect_refused(builder.build(), "version " + std::to_string(version));
  }
  GgufBuilder swapped;
  swapped.version = 0x03000000u;
  expect_refused(swapped.build(), "big-endian");
  GgufBuilder nested;
  nested.add_raw("n", 9, GgufBuilder::bytes_of<uint32_t>(9) + GgufBuilder::bytes_of<uint64_t>(1));
  expect_refused(nested.build(), "array of arrays");
  GgufBuilder unknown;
  unknown.add_raw("n", 13, "");
  expect_refused(unknown.build(), "unknown type 13");
  GgufBuilder twice;
  twice.add("n", 1u);
  twice.add("n", 2u);
  expect_refused(twice.build(), "metadata key 'n': appears twice");
}

std::string with_info(const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  GgufBuilder builder;
  builder.add_info("x", dims, type, offset);
  builder.add_data(std::string(64, '\0'));
  return builder.build();
}

TEST(HostileGguf, TensorInfos) {
  EXPECT_EQ(message_of(with_info({16}, 0, 0)), "no error");
  expect_refused(with_info({16}, 0, 32), "tensor 'x': takes 64 bytes at offset 32 of a data section of 64");
  expect_refused(with_info({16}, 0, 4), "no multiple of the alignment 32");
  expect_refused(with_info({16}, 0, UINT64_MAX - 31), "at offset");
  expect_refused(with_info({0}, 0, 0), "impossible shape");
  expect_refused(with_info({UINT64_MAX}, 0, 0), "impossible shape");
  expect_refused(with_info({uint64_t{1} << 62}, 0, 0), "its size overflows");
  expect_refused(with_info({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0), "its size overflows");
  expect_refused(with_info({}, 0, 0), "0 dimensions");
  expect_refused(with_info({1, 1, 1, 1, 1}, 0, 0), "5 dimensions");
  expect_refused(with_info({33}, 8, 0), "rows of 33 elements, Q8_0 asks for a multiple of 32");
  expect_refused(with_info({256}, 13, 0), "tensor 'x': has the unsupported type Q5_K");
  expect_refused(with_info({256}, 999, 0), "tensor 'x': has the unsupported type 999");
  GgufBuilder overlap;
  overlap.add_info("x", {16}, 0, 0);
  overlap.add_info("y", {8}, 0, 32);
  overlap.add_data(std::string(64, '\0'));
  expect_refused(overlap.build(), "tensor 'y': overlaps tensor 'x'");
  GgufBuilder twice;
  twice.add_info("x", {8}, 0, 0);
  twice.add_info("x", {8}, 0, 32);
  twice.add_data(std::string(64, '\0'));
  expect_refused(twice.build(), "appears twice");
}

}  // namespace
}  // namespace msa
