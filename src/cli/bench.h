// What the parts of `msa bench` share.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>

#include "cli/commands.h"

namespace msa::cli {

inline double round1(double x) { return std::round(x * 10) / 10; }
inline double round2(double x) { return std::round(x * 100) / 100; }

struct BankBenchOptions {
  int64_t documents = 1000000;
  int chunks = 1;        // of each document
  int text_bytes = 280;  // of each chunk; 64 tokens of English
  int layers = 2;        // routing layers; so that a million documents take little room
  int kv_heads = 1;
  int head_dim = 16;
  std::string folder;  // where the bank is made and removed again; empty = the system's place for such files
};

Json measure_bank(const BankBenchOptions& options);

}  // namespace msa::cli
