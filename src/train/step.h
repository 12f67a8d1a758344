// One training step's losses, from a batch.
#pragma once
#include <torch/torch.h>

#include "train/batch.h"
#include "train/losses.h"
#include "train/network.h"

namespace msa::train {

/// A batch on the device.
struct StepInput {
  Pack pool;  // template head and the documents that take part in the backward pass
  Chunks chunks;
  Pack extra;  // head and forward-only documents; without tokens where there are none
  Chunks extra_chunks;
  RowOwners documents;  // chunks of all documents, those of the pool first
  Samples samples;
  RoutingTargets targets;
  torch::Tensor predicting_rows;   // int64 [N] rows of the samples' pack: the token before each predicted one
  torch::Tensor predicted_tokens;  // int64 [N]
  torch::Tensor predicted_cites;   // float32 [N] 1: of a sample that asks for documents
  int64_t n_predicted = 0, n_predicted_cites = 0;
  torch::Tensor rerank_rows;    // int64 [R] last row of each candidate's sample; undefined without any
  torch::Tensor rerank_groups;  // int64 [G, longest] into rerank_rows, the right candidate first; R where there is none
  int top_k = 16;
  int64_t n_tokens = 0;  // documents and samples

  static StepInput from(const Batch& batch, const ModelConfig& config, torch::Device device);
};

struct StepOptions {
  double lm_weight = 1, aux_weight = 0.1, distillation_weight = 0;
  double cite_weight = 1;  // of each token that cites documents in the mean that L_LM is; other tokens weigh 1
  double mean_weight =
      0;  // of the same routing loss on the weighted mean of the layers' scores, relative to aux_weight
  double mean_tau = 0.05;
  double late_weight = 0;  // of the same loss on the mean of the layers' late scores, relative to aux_weight
  double late_tau = 0.02, late_distillation = 0;
  // Of the same losses on mean score / mean_tau + late score / late_tau, by which the engine chooses what it cites.
  double cited_weight = 0, cited_distillation = 0;
  double rerank_weight = 1;
  int32_t rerank_yes = -1, rerank_no = -1;  // tokens
  RoutingLoss routing_loss = RoutingLoss::kEquation5;
  double tau = 0.1, teacher_tau = 1;
  Recompute recompute = Recompute::kNone;  // of stage 1, layer by layer
  bool attend_gold = false;                // gold documents are selected whatever their scores
};

struct StepResult {
  torch::Tensor loss, lm_loss, aux_loss;  // scalars
  torch::Tensor cite_loss, text_loss;     // means over tokens that cite documents, and over the others; 0 without any
  torch::Tensor mean_loss;                // undefined without its weight
  torch::Tensor distillation;             // undefined without a teacher; of the mean score
  torch::Tensor late_loss, late_distillation;  // undefined without their weights
  torch::Tensor cited_loss, cited_distillation;
  torch::Tensor rerank_loss, rerank_1;  // undefined without candidates; share of groups whose right one is first
  torch::Tensor recall_1, recall_16;    // inside the pool, mean score over layers
  torch::Tensor late_recall_1;          // of the 16 best by mean score, ranked by the late score
};

/// The losses of what the samples gave.
StepResult losses_of(const Network& network, const NetworkTensors& w, const StepInput& input, const QueryResult& out,
                     const StepOptions& options);

StepResult run_step(const Network& network, const NetworkTensors& w, const StepInput& input,
                    const StepOptions& options);

}  // namespace msa::train
