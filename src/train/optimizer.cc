#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace msa::train {
namespace {

double rate_of(const OptimizerRecipe& recipe, const std::string& group) {
  if (group == "adapter") return recipe.adapter_rate;
  if (group == "router") return recipe.router_rate;
  if (group == "layers") return recipe.layer_weight_rate;
  return recipe.weights_rate;
}

}  // namespace

double rate_factor(const OptimizerRecipe& recipe, int64_t step, int64_t steps, double warm_share) {
  const double ramp = recipe.warmup_steps > 0
                          ? std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(recipe.warmup_steps))
                          : 1.0;
  const double share = static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, steps));
  const double done = warm_share < 1 ? std::clamp((share - warm_share) / (1 - warm_share), 0.0, 1.0) : 0.0;
  double left = 1;
  if (recipe.schedule == "cosine") left = 0.5 * (1 + std::cos(std::numbers::pi * done));
  if (recipe.schedule == "linear") left = 1 - done;
  return ramp * (recipe.final_share + (1 - recipe.final_share) * left);
}

AdamW::AdamW(const OptimizerRecipe& recipe, const Parameters& parameters) : recipe_(recipe) {
  for (const Parameters::Group& g : parameters.groups()) {
    moments_.push_back({g.name, rate_of(recipe, g.name), torch::zeros_like(g.values), torch::zeros_like(g.values)});
  }
}

torch::Tensor AdamW::step(const Parameters& parameters, int64_t step, double factor) {
  torch::NoGradGuard no_gradients;
  const torch::Tensor norm = parameters.gradient_norm();
  const torch::Tensor finite = norm.isfinite();
  const torch::Tensor clip = (recipe_.clip / (norm + 1e-6)).clamp_max(1.0);
  const double correction1 = 1 - std::pow(recipe_.beta1, static_cast<double>(step));
  const double correction2 = 1 - std::pow(recipe_.beta2, static_cast<double>(step));
  for (size_t i = 0; i < moments_.size(); ++i) {
    torch::Tensor values = parameters.groups()[i].values;
    Moments& m = moments_[i];
    const double rate = m.rate * factor;
    const torch::Tensor g =
        torch::where(finite, parameters.groups()[i].gradients * clip, torch::zeros({1}, values.options()));
    m.first.mul_(recipe_.beta1).add_(g, 1 - recipe_.beta1);
    m.second.mul_(recipe_.beta2).addcmul_(g, g, 1 - recipe_.beta2);
    const torch::Tensor denominator = (m.second / correction2).sqrt_().add_(recipe_.epsilon);
    const torch::Tensor update = (m.first / correction1).div_(denominator).add_(values, recipe_.weight_decay);
    values.sub_(torch::where(finite, update.mul_(rate), torch::zeros({1}, values.options())));
  }
  return norm;
}

}  // namespace msa::train
