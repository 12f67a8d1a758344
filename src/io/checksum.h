// xxh3: fast checksums and fingerprints. Not a defence against forgery.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace msa {

uint64_t xxh3_64(const void* data, size_t size);
/// xxh3-128 as 32 hex digits.
std::string xxh3_128_hex(const void* data, size_t size);

/// xxh3-128 of a stream of pieces; where one piece ends and the next begins does not matter.
class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  void update(const void* data, size_t size);
  void update(std::string_view text) { update(text.data(), text.size()); }
  std::string hex() const;  // 32 digits; more updates may follow

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace msa
