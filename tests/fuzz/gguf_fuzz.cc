// Any bytes are either refused with an Error or parsed into tensors that lie inside them.
#include <cstddef>
#include <cstdint>

#include "io/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = msa::GgufFile::parse(std::as_bytes(std::span(data, size)), "input");
    volatile uint8_t sink = 0;
    for (const auto& [name, tensor] : file.tensors()) {
      for (int64_t i = 0; i < tensor.bytes(); ++i) sink = tensor.as<uint8_t>()[i];
    }
    static_cast<void>(sink);
  } catch (const msa::Error&) {
    // refused
  }
  return 0;
}
