#include "tokenizer/utf8.h"

#include <uninorm.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace msa {
namespace {

struct LeadByte {
  int bytes;           // of the whole character; 0: no character starts so
  uint8_t low = 0x80;  // the second byte lies in [low, high]
  uint8_t high = 0xBF;
};

LeadByte lead_byte(uint8_t b) {
  if (b < 0x80) return {1};
  if (b < 0xC2 || b > 0xF4) return {0};
  if (b < 0xE0) return {2};
  if (b == 0xE0) return {3, 0xA0, 0xBF};
  if (b == 0xED) return {3, 0x80, 0x9F};
  if (b < 0xF0) return {3};
  if (b == 0xF0) return {4, 0x90, 0xBF};
  if (b == 0xF4) return {4, 0x80, 0x8F};
  return {4};
}

}  // namespace

Utf8Step utf8_step(std::string_view text) {
  const LeadByte lead = lead_byte(static_cast<uint8_t>(text[0]));
  if (lead.bytes == 0) return {1, false, false};
  for (int i = 1; i < lead.bytes; ++i) {
    if (static_cast<size_t>(i) == text.size()) return {i, false, true};
    const uint8_t b = static_cast<uint8_t>(text[static_cast<size_t>(i)]);
    const uint8_t low = i == 1 ? lead.low : uint8_t{0x80};
    const uint8_t high = i == 1 ? lead.high : uint8_t{0xBF};
    if (b < low || b > high) return {i, false, false};
  }
  return {lead.bytes, true, false};
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    if (!step.valid) return false;
    text.remove_prefix(static_cast<size_t>(step.bytes));
  }
  return true;
}

std::string replace_broken_utf8(std::string_view text) {
  std::string repaired;
  repaired.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    const size_t n = static_cast<size_t>(step.bytes);
    repaired += step.valid ? text.substr(0, n) : kReplacementCharacter;
    text.remove_prefix(n);
  }
  return repaired;
}

std::string compose_nfc(std::string_view text) {
  // Every character below U+0300, whose first byte is 0xCC, is its own composed form.
  const bool composed = std::all_of(text.begin(), text.end(), [](char c) {
    const uint8_t b = static_cast<uint8_t>(c);
    return b < 0xCC;
  });
  if (composed) return std::string(text);
  size_t size = 0;
  const std::unique_ptr<uint8_t, decltype(&std::free)> bytes(
      u8_normalize(UNINORM_NFC, reinterpret_cast<const uint8_t*>(text.data()), text.size(), nullptr, &size),
      &std::free);
  if (!bytes) throw std::bad_alloc();
  return std::string(reinterpret_cast<const char*>(bytes.get()), size);
}

}  // namespace msa
