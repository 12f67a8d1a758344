#include "router/key_placement.h"

#include <algorithm>

#include "core/dtype.h"
#include "core/error.h"
#include "ops/routing_quantise.h"

namespace msa {
namespace {

constexpr int64_t kContentPart = 8;  // of the memory for keys and content
constexpr int64_t kMostContent = int64_t{1} << 30;

std::string share(int64_t part, int64_t all) { return std::to_string(100 * part / std::max<int64_t>(all, 1)) + " %"; }

}  // namespace

KeyFormat parse_key_format(const std::string& name) {
  if (name == "auto") return KeyFormat::kAuto;
  if (name == "bf16") return KeyFormat::kBF16;
  if (name == "int8") return KeyFormat::kInt8;
  throw Error("unknown form of routing keys '" + name + "'", "--routing-keys", "use auto, bf16 or int8");
}

int64_t DeviceOptions::content_share(int64_t bytes) { return std::min(bytes / kContentPart, kMostContent); }

KeyPlacement place_keys(KeyFormat format, const KeySizes& sizes, int64_t budget) {
  const int64_t bf16_row = std::max<int64_t>(1, int64_t{sizes.layers} * sizes.width * int64_t{sizeof(bf16)});
  const int64_t int8_row =
      std::max<int64_t>(1, int64_t{sizes.layers} * static_cast<int64_t>(quantised_key_bytes(sizes.width)));
  budget = std::max<int64_t>(budget, 0);
  const bool fits = sizes.rows <= budget / bf16_row;
  if (format == KeyFormat::kBF16 || (format == KeyFormat::kAuto && fits)) {
    return {std::min(sizes.rows, budget / bf16_row), 0};
  }
  if (sizes.rows <= budget / (bf16_row + int8_row)) return {sizes.rows, sizes.rows};
  return {0, std::min(sizes.rows, budget / int8_row)};
}

std::string describe(const KeyPlacement& placement, const KeySizes& sizes) {
  const int64_t on_gpu = std::max(placement.bf16_rows, placement.int8_rows);
  std::string out = placement.int8_rows > 0 ? "int8 routing keys" : "bf16 routing keys";
  out += on_gpu == sizes.rows ? " on the GPU" : ", " + share(on_gpu, sizes.rows) + " of them on the GPU";
  if (placement.int8_rows > 0) out += placement.bf16_rows > 0 ? ", bf16 keys too" : ", bf16 keys in host memory";
  if (on_gpu < sizes.rows) out += "; the rest is copied there in every scan";
  return out;
}

}  // namespace msa
