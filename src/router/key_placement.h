// Which routing keys of a bank lie on a GPU, and in which form.
#pragma once
#include <cstdint>
#include <string>

namespace msa {

enum class KeyFormat {
  kAuto,  // bf16 where they fit the GPU, else int8, else int4
  kBF16,
  kInt8,  // half the bytes to read; what they cannot decide is scored from bf16 keys: the same documents
  kInt4,  // a quarter
};
KeyFormat parse_key_format(const std::string& name);  // "auto", "bf16", "int8", "int4"; throws Error otherwise

/// How a bank uses a GPU.
struct DeviceOptions {
  KeyFormat keys = KeyFormat::kAuto;
  int64_t gpu_memory = 0;            // bytes at most for keys and hot content; 0: what is free
  int64_t piece_bytes = 32ll << 20;  // of keys that come from host memory, at a time

  /// Of so many bytes for both.
  static int64_t content_share(int64_t bytes);
};

/// Rows [0, bf16_rows) and, quantised, [0, quantised_rows) of every layer lie on the GPU; what has neither comes from
/// host memory.
struct KeyPlacement {
  int64_t bf16_rows = 0;
  int64_t quantised_rows = 0;
  int bits = 8;  // of quantised keys
  int64_t on_gpu() const { return bf16_rows > quantised_rows ? bf16_rows : quantised_rows; }
  friend bool operator==(const KeyPlacement&, const KeyPlacement&) = default;
};

struct KeySizes {
  int64_t rows = 0;  // of a layer
  int layers = 0;
  int width = 0;  // elements of a key
};

/// Within `budget` bytes. Quantised keys take bf16 keys along where both fit. 4 bits are for widths that are a multiple
/// of 64; others get int8.
KeyPlacement place_keys(KeyFormat format, const KeySizes& sizes, int64_t budget);

/// "bf16 keys on the GPU", "int8 keys …, 40 % …": for a log.
std::string describe(const KeyPlacement& placement, const KeySizes& sizes);

}  // namespace msa
