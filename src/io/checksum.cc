#include "io/checksum.h"

#include <xxhash.h>

#include <cstdio>
#include <new>

namespace msa {
namespace {

std::string to_hex(XXH128_hash_t hash) {
  char text[33];
  std::snprintf(text, sizeof(text), "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text;
}

}  // namespace

uint64_t xxh3_64(const void* data, size_t size) { return XXH3_64bits(data, size); }

std::string xxh3_128_hex(const void* data, size_t size) { return to_hex(XXH3_128bits(data, size)); }

struct Xxh3::State {
  XXH3_state_t* state = XXH3_createState();
  ~State() { XXH3_freeState(state); }
};

Xxh3::Xxh3() : state_(std::make_unique<State>()) {
  if (state_->state == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state_->state);
}

Xxh3::~Xxh3() = default;

void Xxh3::update(const void* data, size_t size) { XXH3_128bits_update(state_->state, data, size); }

std::string Xxh3::hex() const { return to_hex(XXH3_128bits_digest(state_->state)); }

}  // namespace msa
