// AdamW with decoupled weight decay (Loshchilov and Hutter, 2019) over flat buffers, without a host round trip.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "train/parameters.h"
#include "train/recipe.h"

namespace msa::train {

/// Factor on every learning rate at a step of `steps`: linear warm-up, flat through the warm phase, then the schedule.
double rate_factor(const OptimizerRecipe& recipe, int64_t step, int64_t steps, double warm_share);

class AdamW {
 public:
  struct Moments {
    std::string group;
    double rate = 0;
    torch::Tensor first, second;  // float32 [n], as the group's values
  };

  AdamW(const OptimizerRecipe& recipe, const Parameters& parameters);

  /// Clips the gradients by their common norm and takes one step; `step` counts from 1. A gradient that is not finite
  /// changes nothing. Returns the norm before clipping, a scalar on the device.
  torch::Tensor step(const Parameters& parameters, int64_t step, double factor);

  std::vector<Moments>& moments() { return moments_; }
  const std::vector<Moments>& moments() const { return moments_; }

 private:
  OptimizerRecipe recipe_;
  std::vector<Moments> moments_;  // one for each group
};

}  // namespace msa::train
