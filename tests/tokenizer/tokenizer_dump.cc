// For compare_tokenizers.py. stdin: records of uint32 flag (1: parse special tokens), uint32 size, bytes,
// little-endian; stdout for each: uint32 count and the ids, then uint32 size and the ids decoded, special tokens kept.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "core/error.h"
#include "tokenizer/tokenizer.h"

namespace {

void put(uint32_t value) { std::fwrite(&value, sizeof value, 1, stdout); }

int dump(const std::string& path) {
  const bool json = path.size() > 5 && path.substr(path.size() - 5) == ".json";
  const msa::Tokenizer tokenizer = json ? msa::Tokenizer::from_json_file(path) : msa::Tokenizer::from_gguf(path);
  uint32_t header[2];
  std::string text;
  while (std::fread(header, sizeof header, 1, stdin) == 1) {
    text.resize(header[1]);
    if (std::fread(text.data(), 1, text.size(), stdin) != text.size()) return 1;
    const auto ids = tokenizer.encode(text, header[0] == 1);
    put(static_cast<uint32_t>(ids.size()));
    std::fwrite(ids.data(), sizeof(int32_t), ids.size(), stdout);
    const std::string back = tokenizer.decode(ids, /*skip_special=*/false);
    put(static_cast<uint32_t>(back.size()));
    std::fwrite(back.data(), 1, back.size(), stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenizer_dump TOKENIZER.json|MODEL.gguf\n");
    return 2;
  }
  try {
    return dump(argv[1]);
  } catch (const msa::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
