// How fast a training step is for a shape of model and batch, with made-up weights and tokens.
#pragma once
#include <torch/torch.h>

#include "model/weights.h"
#include "train/backbone.h"
#include "train/batch.h"

namespace msa::train {

/// "135m" (SmolLM2) or "4b" (Qwen3), the upper half of the layers routing. Throws Error on another name.
ModelConfig shape_config(const std::string& name);

/// Random numbers in every tensor; matrices of one size may share them.
ModelWeights made_up_weights(const ModelConfig& config, uint64_t seed);

struct BenchmarkBatch {
  int64_t pool_tokens = 65536;
  int64_t samples = 96;
  int document_tokens_from = 64, document_tokens_to = 300;  // drawn evenly
  int question_tokens = 32, written_tokens = 16, sample_tokens = 144;
};

/// Documents of random lengths up to pool_tokens; each sample has one gold document, routes with its question, and
/// predicts its last written_tokens.
Batch made_up_batch(const ModelConfig& config, const BenchmarkBatch& shape, uint64_t seed);

struct BenchmarkOptions {
  BenchmarkBatch batch;
  TrainedParts parts;
  Recompute recompute = Recompute::kNone;
  bool late = false;  // with losses on the late scores
  int steps = 10;
  torch::Device device = torch::kCPU;
};

struct BenchmarkResult {
  int64_t tokens = 0;                                                     // of a step: documents and samples
  double step_ms = 0;                                                     // median
  double encode_ms = 0, query_ms = 0, backward_ms = 0, optimizer_ms = 0;  // of one step in parts, each waited for
  double input_ms = 0;       // making the step's input on the device, part of step_ms
  double product_flops = 0;  // of a step's matrix products, forward and backward, recomputing left out
  double limit_flops = 0;    // a second, of one large matrix product on this device
  double memory_gib = 0;
};

BenchmarkResult run_benchmark(const ModelConfig& config, const BenchmarkOptions& options);

}  // namespace msa::train
