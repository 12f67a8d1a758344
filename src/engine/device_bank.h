// What a GPU keeps of a bank between questions: its routing keys, and content that was selected lately.
#pragma once
#include <memory>

#include "core/buffer.h"
#include "core/lru_cache.h"
#include "router/device_keys.h"

namespace msa {

/// One document's content in one routing layer.
struct ContentKey {
  uint64_t segment = 0;  // its checksum
  int64_t document = 0;  // index in the segment
  int layer = 0;         // routing index
  friend bool operator==(const ContentKey&, const ContentKey&) = default;
};

struct ContentKeyHash {
  size_t operator()(const ContentKey& key) const {
    const uint64_t mixed =
        key.segment ^ (static_cast<uint64_t>(key.document) * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(key.layer));
    return static_cast<size_t>((mixed ^ mixed >> 29) * 0xbf58476d1ce4e5b9u);
  }
};

/// Blocks on the GPU [chunks, 2 (K|V), G·d]; one that a question still uses outlives its place here.
using ContentCache = LruCache<ContentKey, std::shared_ptr<Buffer>, ContentKeyHash>;

/// Of one bank on one GPU; one question at a time.
class DeviceBank {
 public:
  explicit DeviceBank(const DeviceOptions& options = {}) : options_(options) {}

  /// The snapshot's keys; null on the CPU and for banks that the scan on a GPU does not take.
  std::shared_ptr<const DeviceKeys> keys(Context& context, const std::shared_ptr<const Snapshot>& snapshot) {
    return device_keys(context, snapshot, keys_, options_);
  }
  /// Null on the CPU.
  std::shared_ptr<ContentCache> content(const Context& context);

 private:
  DeviceOptions options_;
  std::shared_ptr<DeviceKeys> keys_;
  std::shared_ptr<ContentCache> content_;
};

}  // namespace msa
