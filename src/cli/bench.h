// What the subcommands of `msa bench` share.
#pragma once
#include <string>

#include "cli/commands.h"

namespace msa::cli {

struct BenchOptions {
  int repeats = 5;
  int document_tokens = 512;
  int documents = 16;
  int new_tokens = 128;
  int prompt_tokens = 32;
  int64_t chunks = 200000;
  int query_tokens = 32;
  int pack_tokens = 0;  // 0: the device's own
  std::string shape;    // random weights of this shape; "": a model directory
};

int bench_ops(const Common& common, const BenchOptions& o);

}  // namespace msa::cli
