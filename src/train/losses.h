// The losses of training (paper section 3.3) and the targets they need.
#pragma once
#include <torch/torch.h>

#include <vector>

#include "train/batch.h"

namespace msa::train {

/// Which documents a sample's scores are held against. All on the device.
struct RoutingTargets {
  torch::Tensor positive;  // bool [Q, D]
  torch::Tensor negative;  // bool [Q, D]
  torch::Tensor teacher;   // float32 [Q, D], -inf where the teacher says nothing; undefined without a teacher
  torch::Tensor counted;   // float32 [Q, 1]: 1 where the sample has positives

  static RoutingTargets from(const Batch& batch, torch::Device device);
};

enum class RoutingLoss {
  kEquation5,  // each positive against the negatives alone ("INFONCE_DECOUPLE")
  kInfoNce,    // each positive against all documents
};

/// Mean over layers and samples with positives. scores: float32 [Q, D] per routing layer; tau: equation 5's
/// temperature.
torch::Tensor routing_loss(const std::vector<torch::Tensor>& scores, const RoutingTargets& targets, RoutingLoss kind,
                           double tau);

/// Cross-entropy of the router's distribution (scores / tau) with the teacher's (teacher / teacher_tau), both over the
/// documents that the teacher scored; mean over layers and samples that have a teacher.
torch::Tensor distillation_loss(const std::vector<torch::Tensor>& scores, const RoutingTargets& targets, double tau,
                                double teacher_tau);

/// `second` [Q, D] at the k best documents of `first`, -inf elsewhere: a ranking in two stages.
torch::Tensor best_again(const torch::Tensor& first, const torch::Tensor& second, int64_t k);

/// Share of samples (with positives) that have a positive among their k best documents of `scores` [Q, D].
torch::Tensor recall_at(const torch::Tensor& scores, const RoutingTargets& targets, int64_t k);

}  // namespace msa::train
