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
  if (name == "int4") return KeyFormat::kInt4;
  throw Error("unknown form of routing keys '" + name + "'", "--routing-keys", "use auto, bf16, int8 or int4");
}

int64_t DeviceOptions::content_share(int64_t bytes) { return std::min(bytes / kContentPart, kMostContent); }

KeyPlacement place_keys(KeyFormat format, const KeySizes& sizes, int64_t budget) {
  const auto bytes = [&](size_t a_key) { return std::max<int64_t>(1, sizes.layers * static_cast<int64_t>(a_key)); };
  const int64_t exact = bytes(static_cast<size_t>(sizes.width) * sizeof(bf16));
  const int64_t int8 = bytes(quantised_key_bytes(sizes.width)), int4 = bytes(quantised_key_bytes(sizes.width, 4));
  const auto fitting = [&](int64_t a_row) { return std::min(sizes.rows, std::max<int64_t>(budget, 0) / a_row); };
  const bool is_auto = format == KeyFormat::kAuto;
  if (format == KeyFormat::kBF16 || (is_auto && fitting(exact) == sizes.rows)) return {fitting(exact), 0, 8};
  const bool packs = sizes.width % kPackedWidthStep == 0;
  const bool four = packs && (format == KeyFormat::kInt4 || (is_auto && fitting(int8) < sizes.rows));
  const int64_t quantised = four ? int4 : int8;
  const bool both = fitting(exact + quantised) == sizes.rows;
  return {both ? sizes.rows : 0, fitting(quantised), four ? 4 : 8};
}

std::string describe(const KeyPlacement& placement, const KeySizes& sizes) {
  const bool quantised = placement.quantised_rows > 0;
  const std::string form = !quantised ? "bf16" : "int" + std::to_string(placement.bits);
  std::string out = form + " routing keys";
  const bool all = placement.on_gpu() == sizes.rows;
  out += all ? " on the GPU" : ", " + share(placement.on_gpu(), sizes.rows) + " of them on the GPU";
  if (quantised) out += placement.bf16_rows > 0 ? ", bf16 keys too" : ", bf16 keys in host memory";
  if (!all) out += "; the rest is copied there in every scan";
  return out;
}

}  // namespace msa
