// What travels between rank 0, which runs a question, and the ranks that hold the other parts of the bank. Plain
// structs and their bytes; a request gets one reply, kEncode several, kEnd and kStop none.
#pragma once
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "bank/shard.h"
#include "comm/exchange.h"

namespace msa {

enum class ShardCommand : uint32_t {
  kHold,     // SlotRange, ShardPlan → nothing: the part that the rank is to hold
  kBegin,    // top_k i32, late u8, allowed u8 [slots of the part], or none → nothing: a query over what is held now
  kRoute,    // RouteRequest, body q F32 [n, G·d] folded → ShardCandidate [n]; body: their content, where it is small
  kContent,  // routing index i32, slots i64 [n] → body: the documents' content, one after another
  kRouted,   // count i32 → ShardCandidate [n] by mean score, F32 [n, routing layers]
  kScores,   // routing index i32 → F32 [slots of the part]
  kLate,     // slots i64 [n] → late-interaction scores F32 [n]
  kEnd,      // forgets a query
  kEncode,  // bank's folder, fingerprint, dtype, segment number i64, ids i64 [n], tokens i32 of each document → while
            // it goes on the tokens done i64 since the last reply, > 0; at last 0, SegmentRow, DocumentSize [n]
  kPing,    // reply bytes i64, any body → a body of so many bytes: for measurements
  kStop,    // the run is over
};

struct RequestHead {
  uint64_t ticket = 0;  // the reply has the same
  ShardCommand command = ShardCommand::kStop;
  uint32_t query = 0;
};

struct ReplyHead {
  uint64_t ticket = 0;
  uint64_t failed = 0;  // the rest of the head is then the error's text
};

struct RouteRequest {
  int32_t routing_index = 0;
  int32_t n_queries = 0;
};

/// One of a part's best documents. Slots are those of the whole snapshot.
struct ShardCandidate {
  int64_t slot = 0;
  float score = 0;
  int32_t unused = 0;
};

/// Appends plain values and arrays of them to a message's head.
class HeadWriter {
 public:
  explicit HeadWriter(std::vector<std::byte>& head) : head_(head) {}

  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    append(&value, sizeof value);
  }
  template <class T>
  void put_all(std::span<const T> values) {
    static_assert(std::is_trivially_copyable_v<T>);
    put(static_cast<uint64_t>(values.size()));
    append(values.data(), values.size_bytes());
  }
  void put_text(std::string_view text) { put_all(std::span(text.data(), text.size())); }

 private:
  void append(const void* from, size_t bytes) {
    if (bytes == 0) return;
    head_.resize(head_.size() + bytes);
    std::memcpy(head_.data() + head_.size() - bytes, from, bytes);
  }

  std::vector<std::byte>& head_;
};

/// Reads them again, in the same order. Throws Error where the bytes end before.
class HeadReader {
 public:
  HeadReader() = default;
  explicit HeadReader(std::span<const std::byte> head) : rest_(head) {}

  template <class T>
  T get() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  template <class T>
  std::vector<T> get_all() {
    const auto n = get<uint64_t>();
    if (n > rest_.size() / sizeof(T)) fail();
    std::vector<T> values(static_cast<size_t>(n));
    const std::span<const std::byte> bytes = take(values.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  std::string get_text() {
    const std::vector<char> text = get_all<char>();
    return {text.begin(), text.end()};
  }

 private:
  [[noreturn]] static void fail();
  std::span<const std::byte> take(size_t bytes);

  std::span<const std::byte> rest_;
};

void put_plan(HeadWriter& out, const ShardPlan& plan);
ShardPlan get_plan(HeadReader& in);

}  // namespace msa
